"""The values that parity works with: what is tested, what one sample says, and a role's chain set back. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from app.call import Choice, Target
from app.route import known
from app.route.sequential import Rules, State, read

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

    from app.route.sequential import Counts, Reading
    from app.trace import Usage

Method = Literal["equal", "faults", "contract", "judge", "unjudged"]
"""How a pair was scored; ``unjudged``: nobody gave a verdict that can be read, so it has no difference."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What makes it one test: where any of this changes, a new test begins.

    Attributes:
        task: empty where no task asked; prompt_hash: of its prompt.
        target: who answers the role's callers; reference: with whom it is compared.
    """

    role: str
    task: str
    target: Target
    reference: Target
    prompt_hash: str = ""
    rules: Rules = field(default_factory=Rules)

    @property
    def key(self) -> str:
        """A digest of all of it."""
        parts = [self.role, self.task, str(self.target), str(self.reference), self.prompt_hash, asdict(self.rules)]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the judge said of one pair: 1 the target won, 0 a tie, -1 it lost; None: not asked, or not to be read.

    Attributes:
        first: with the target's answer first; second: with the reference's first; again: the first question repeated.
    """

    first: int | None = None
    second: int | None = None
    again: int | None = None

    @property
    def difference(self) -> float | None:
        """Both ways round together: where they disagree, it is a tie."""
        if self.first is None or self.second is None:
            return None
        return float(self.first) if self.first == self.second else 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One call that the reference answered as well.

    Attributes:
        difference: -1 the target lost to 1 it won; None where the pair could not be scored.
        usage: of the target's answer; shadow_usage: of the reference's.
        shadow_usd: what the reference's answer cost; judge_usd: what the verdicts did; None where unpriced.
        label: what the classifier saw of the call, for training.
    """

    id: str
    request_id: str
    at_ms: int
    difference: float | None
    method: Method
    verdicts: Verdicts = Verdicts()
    usage: Usage | None = None
    shadow_usage: Usage | None = None
    shadow_usd: Decimal | None = None
    judge_usd: Decimal | None = None
    label: Label | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """What a router can learn from a sample: the verdict of the call, and what the classifier saw in it."""

    kind: str | None
    complexity: int | None
    layout: str
    features: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A test as it stands.

    Attributes:
        id: of the test; round: how often it was armed again.
        state: what was decided; it stays until the test is armed again, except that a certified model can breach.
        judged: how often the judge gave each (first, second, again).
    """

    id: str
    round: int
    trial: Trial
    state: State
    rolled_back: bool
    began_ms: int
    decided_ms: int | None
    counts: Counts
    unscored: int = 0
    judged: tuple[tuple[Verdicts, int], ...] = ()

    def reading(self) -> Reading:
        """Return bounds and mean; the state is the one that was decided."""
        return read(self.counts, self.trial.rules)


@dataclass(frozen=True, slots=True)
class Rollback:
    """In a role, this target is out of use; calls go to the reference."""

    role: str
    target: Target
    reference: Target


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """How far the judge can be trusted.

    Attributes:
        pairs: asked both ways round; agreed: of them, with the same verdict both times.
        first_wins, second_wins: verdicts for the answer that stood first, and second.
        repeated: questions asked again; same: of them, with the same verdict.
    """

    pairs: int = 0
    agreed: int = 0
    first_wins: int = 0
    second_wins: int = 0
    repeated: int = 0
    same: int = 0

    @property
    def position_bias(self) -> float | None:
        """By how much more often the first answer wins than the second, of all verdicts; 0 is none."""
        return (self.first_wins - self.second_wins) / (2 * self.pairs) if self.pairs else None


def judge_report(judged: Iterable[tuple[Verdicts, int]]) -> JudgeReport:
    """Add up what is known of the judge."""
    pairs = agreed = first_wins = second_wins = repeated = same = 0
    for said, times in judged:
        if said.first is None or said.second is None:
            continue
        pairs += times
        agreed += times * (said.first == said.second)
        first_wins += times * ((said.first == 1) + (said.second == -1))
        second_wins += times * ((said.first == -1) + (said.second == 1))
        if said.again is not None:
            repeated += times
            same += times * (said.first == said.again)
    return JudgeReport(pairs, agreed, first_wins, second_wins, repeated, same)


def set_back(chain: Iterable[Choice], rollbacks: Iterable[Rollback]) -> tuple[Choice, ...]:
    """Return a role's chain with the reference in the place, and with the weight, of each target that lost to it.

    A reference that then stands twice takes the first place, and all its weight.
    """
    instead = {known.expand(each.target): each.reference for each in rollbacks}
    found: dict[Target, int | None] = {}
    for link, weight in chain:
        target = instead.get(known.expand(link), link)
        before = found.get(target)
        found[target] = weight if before is None else before + (weight or 0)
    return tuple(Choice(target, weight) for target, weight in found.items())
