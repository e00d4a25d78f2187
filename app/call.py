"""The values that flow through one call: Ask -> Verdict -> Plan; app/trace.py has what follows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from operator import add
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from app.value import value

if TYPE_CHECKING:
    from decimal import Decimal

    from app.form import Form

_WEIGHT = re.compile(r"@(\d+)$")


OnWeak = Literal["polish", "escalate", "serve"]
Purpose = Literal["answer", "draft", "polish", "escalate", "judge", "shadow", "classify"]
"""What an attempt was for; a draft is an answer in whose place a better one was served."""


class Target(NamedTuple):
    """A model at a backend, written ``backend/model-id``."""

    backend: str
    model: str

    def __str__(self) -> str:
        return f"{self.backend}/{self.model}"

    @classmethod
    def parse(cls, text: str) -> Target:
        """Split ``backend/model-id`` at the first slash.

        Raises:
            ValueError: there is no backend or no model in the text.
        """
        backend, slash, model = text.strip().partition("/")
        if not slash or not backend or not model:
            raise ValueError(f"{text!r} is not a target: write backend/model-id, e.g. groq/llama-3.3-70b-versatile")
        return cls(backend.lower(), model)


class Choice(NamedTuple):
    """One link of a chain: a target and its A/B weight (None where none was written)."""

    target: Target
    weight: int | None = None

    def __str__(self) -> str:
        return str(self.target) if self.weight is None else f"{self.target}@{self.weight}"

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read ``backend/model-id`` or ``backend/model-id@50``; only a trailing ``@<integer>`` is a weight."""
        text = text.strip()
        found = _WEIGHT.search(text)
        if found is None:
            return cls(Target.parse(text))
        return cls(Target.parse(text[: found.start()]), int(found.group(1)))


@value
class Hints:
    """What the caller said about the call besides the body; explicit hints win over the classifier.

    ``progress`` asks for events where a task or a pipeline would tell its progress by comments.
    """

    task: str | None = None
    complexity: int | None = None
    session: str | None = None
    no_cache: bool = False
    performance: bool = False
    progress: bool = False


@value
class SubCall:
    """What a call that is made for a task brings along: the prompt's word, and who broke the contract before.

    Attributes:
        task: its name; prompt_hash: which version of its file.
        kind, complexity: what the prompt file says; None leaves it to the classifier.
        but: targets that are not to be asked.
    """

    task: str
    prompt_hash: str
    kind: str | None = None
    complexity: int | None = None
    but: tuple[Target, ...] = ()


@value
class Native:
    """What the caller said on another wire, for targets that have it: they get the caller's own words.

    Attributes:
        wire: closed set: ``responses``, ``messages``, ``completions``.
        body: in that wire's shape.
        chat: its translation, which is the body of the Ask. Once a stage works on another body, the caller's own words
            are no longer what is asked, and only the chat counts.
        needs: abilities that only a target with this wire has.
        headers: of the caller's, that belong to the wire.
    """

    wire: str
    body: dict[str, Any]
    chat: dict[str, Any]
    needs: frozenset[str] = frozenset()
    headers: tuple[tuple[str, str], ...] = ()


@value
class KeyTerms:
    """What a caller's key allows; None is no limit. A key that stands in API_KEYS has none of this.

    Attributes:
        id: stays the same when the key is rotated.
        name: given by the operator, for people.
        tenant: whom the ledger names and whose cached answers are found.
        models: patterns of what may stand in ``model``; empty allows all.
        rpm, tpm: calls and tokens a minute; max_parallel: calls at once.
        day_usd, month_usd: what may be spent in a day and in a month, UTC.
        expires_at: seconds since 1970.
    """

    id: str
    name: str
    tenant: str
    models: tuple[str, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    max_parallel: int | None = None
    day_usd: Decimal | None = None
    month_usd: Decimal | None = None
    expires_at: float | None = None

    @property
    def limited(self) -> bool:
        """Whether calls with it are counted as they come."""
        return self.rpm is not None or self.tpm is not None or self.max_parallel is not None

    @property
    def budgeted(self) -> bool:
        """Whether what its calls cost is held against a budget."""
        return self.day_usd is not None or self.month_usd is not None


@value
class Ask:
    """One parsed client call.

    Attributes:
        endpoint: closed set: ``chat``, ``embeddings``, ...
        body: the decoded JSON object; never changed.
        hints: see Hints.
        tenant: who is asking; ``anonymous`` where no key is asked for.
        deadline: absolute, on the event loop's clock, in seconds.
        request_id: as sent to the caller in ``x-request-id``.
        native: the caller's own words, where they came on another wire than the chat's.
        key: what the caller's key allows; None where that is everything.
        sub: set where it is made for a task: then its contract judges the answer, and not the quality check.
        form: the body of an endpoint that takes files; ``body`` then has its fields.
        background: whether nobody waits for the answer, so that it gives way to calls that somebody waits for.
        purpose: what its attempts are for, as the ledger keeps it.
    """

    endpoint: str
    body: dict[str, Any]
    hints: Hints
    tenant: str
    deadline: float
    request_id: str
    native: Native | None = None
    key: KeyTerms | None = None
    sub: SubCall | None = None
    form: Form | None = None
    background: bool = False
    purpose: Purpose = "answer"

    @property
    def stream(self) -> bool:
        """Whether the caller wants server-sent events."""
        return self.body.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        """Whether the caller asked for the usage chunk of a stream."""
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True


class Reasons(Sequence[str]):
    """Sentences that may quote the prompt, which is looked up only where somebody reads them.

    Args:
        plain: the sentences without what they quote.
        quotes: returns what is to be put after each of the first sentences.
    """

    __slots__ = ("plain", "quotes")

    def __init__(self, plain: tuple[str, ...], quotes: Callable[[], tuple[str, ...]]) -> None:
        self.plain = plain
        self.quotes = quotes

    def __len__(self) -> int:
        return len(self.plain)

    def __iter__(self) -> Iterator[str]:
        return iter(self[:])

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[str, ...]: ...
    def __getitem__(self, at: int | slice) -> str | tuple[str, ...]:
        return tuple(map(add, self.plain, (*self.quotes(), *[""] * len(self.plain))))[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Reasons, tuple)) and self[:] == other[:]

    def __hash__(self) -> int:
        return hash(self[:])

    def __repr__(self) -> str:
        return repr(self[:])


def led_by(first: str, reasons: Sequence[str]) -> Sequence[str]:
    """Return reasons with one before them that quotes nothing; what the others quote is not looked up for it."""
    if not isinstance(reasons, Reasons):
        return (first, *reasons)
    return Reasons((first, *reasons.plain), lambda: ("", *reasons.quotes()))


@value
class Verdict:
    """What the classifier says of an Ask.

    Attributes:
        kind: ``code``, ``chat``, ``extraction``, ``translation``, ``summarise``, ``math``, ``creative``,
            ``analysis`` ...; None where nothing judged it.
        complexity: 1 to 10, or None.
        prompt_tokens: an estimate.
        reasons: sentences a person can read.
    """

    kind: str | None = None
    complexity: int | None = None
    prompt_tokens: int | None = None
    reasons: Sequence[str] = ()


@value
class Plan:
    """Candidates in order, what happens to the answer, and why.

    Attributes:
        candidates: targets to try, first to last; never empty.
        role: the role the chain came from, or None where the caller named targets.
        skipped: targets left out, each with the reason.
        check: whether the answer is judged by quality checks.
        on_weak: what happens to a weak answer.
        arm: the target that the A/B weights chose, or None where the chain has none.
        messages: the messages that fit, where turns had to be dropped; None: all of them.
        dropped_turns: how many were.
        why: sentences a person can read.
    """

    candidates: tuple[Target, ...]
    role: str | None = None
    skipped: tuple[tuple[Target, str], ...] = ()
    check: bool = False
    on_weak: OnWeak = "serve"
    arm: Target | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    dropped_turns: int = 0
    why: tuple[str, ...] = ()
