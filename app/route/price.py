"""What tokens cost: pure money, in Decimal, from rates per million tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import date, time

    from app.trace import Usage

_MILLION = Decimal(1_000_000)
_PICO = Decimal("1e-12")
_HOUR_S = Decimal(3600)
_NOTHING = Decimal(0)


class Step(NamedTuple):
    """The rates of a call whose prompt is longer than so many tokens; they then hold for all of its tokens."""

    above: int
    rates: Rates


class Pico(NamedTuple):
    """Rates in whole pico-USD a token: integers are reckoned with in a tenth of the time of Decimals."""

    input: int
    output: int
    cached: int
    cache_write: int
    reasoning: int


@dataclass(frozen=True, slots=True)
class Rates:
    """What one target costs.

    Attributes:
        input: USD per million prompt tokens; output: per million completion tokens.
        cached: per million prompt tokens that were read from the backend's cache; None: as input.
        cache_write: per million prompt tokens written to it; None: as input.
        reasoning: per million tokens of reasoning; None: as output.
        request_usd: per call.
        hour_usd: per hour that calls keep the target busy.
        steps: dearer rates of longer prompts, the longest first.
        source: where they come from, for people.
        text: all of them in a line.
        pico: the rates of tokens in other units; None where these do not hold them exactly.
    """

    input: Decimal = _NOTHING
    output: Decimal = _NOTHING
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    reasoning: Decimal | None = None
    request_usd: Decimal = _NOTHING
    hour_usd: Decimal = _NOTHING
    steps: tuple[Step, ...] = ()
    source: str = ""
    text: str = field(init=False, compare=False, repr=False)
    pico: Pico | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", _told(self))
        object.__setattr__(self, "pico", _in_pico(self))

    def of(self, prompt_tokens: int) -> Rates:
        """Return the rates for a prompt of this length."""
        for above, rates in self.steps:
            if prompt_tokens > above:
                return rates
        return self


def _told(rates: Rates) -> str:
    """Say them in a line, as the ledger keeps them beside each attempt."""
    named = ("input", "cached", "cache_write", "output", "reasoning", "request_usd", "hour_usd")
    told = ((name, getattr(rates, name)) for name in named)
    return " ".join([f"{name}={value}" for name, value in told if value is not None and (value or "_" not in name)])


def _in_pico(rates: Rates) -> Pico | None:
    asked, answered = rates.input, rates.output
    each = (asked, answered, _or(rates.cached, asked), _or(rates.cache_write, asked), _or(rates.reasoning, answered))
    found = [rate * _MILLION for rate in each]
    return None if any(rate % 1 for rate in found) else Pico(*map(int, found))


def _or(rate: Decimal | None, other: Decimal) -> Decimal:
    return other if rate is None else rate


def cost_usd(rates: Rates, usage: Usage, busy_s: float = 0.0) -> Decimal:
    """Return what one attempt cost.

    Args:
        rates: of its target.
        usage: its tokens; cached, written and reasoning ones are parts of the prompt and of the completion.
        busy_s: seconds of the target's time that are this attempt's share.
    """
    if rates.steps:
        rates = rates.of(usage.prompt)
    cached, written, thought = usage.cached, usage.cache_write, usage.reasoning
    asked, answered = usage.prompt - cached - written, usage.completion - thought
    tokens = (max(0, asked), max(0, answered), cached, written, thought)
    total = _tokens_usd(rates, tokens)
    if rates.request_usd or rates.hour_usd:
        total += rates.request_usd + rates.hour_usd * Decimal(busy_s) / _HOUR_S
    return total


def _tokens_usd(rates: Rates, tokens: tuple[int, int, int, int, int]) -> Decimal:
    """Return what tokens cost: asked, answered, read from a cache, written to one, thought."""
    asked, answered, cached, written, thought = tokens
    if rates.pico is not None:
        plain, said, read, wrote, reasoned = rates.pico
        return Decimal(plain * asked + said * answered + read * cached + wrote * written + reasoned * thought) * _PICO
    total = rates.input * asked + rates.output * answered + _or(rates.cached, rates.input) * cached
    total += _or(rates.cache_write, rates.input) * written + _or(rates.reasoning, rates.output) * thought
    return total / _MILLION


class Season(NamedTuple):
    """Rates that hold from a day on, or at certain hours of each day (UTC); or always."""

    rates: Rates
    since: date | None = None
    hours: tuple[time, time] | None = None

    def holds(self, at: datetime) -> bool:
        """Whether they hold at a moment."""
        if self.since is not None:
            return at.date() >= self.since
        if self.hours is not None:
            start, end = self.hours
            now = at.time()
            return now >= start or now < end if end < start else start <= now < end
        return True


def rates_at(seasons: tuple[Season, ...], at_s: float) -> Rates:
    """Return the rates in force at a moment (seconds since 1970); of several that hold, the last."""
    if len(seasons) > 1:
        at = datetime.fromtimestamp(at_s, UTC)
        for season in reversed(seasons):
            if season.holds(at):
                return season.rates
    return seasons[0].rates
