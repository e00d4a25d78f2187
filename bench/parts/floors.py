"""What Sluice has set itself, and whether a run of bench/gateway reached it. Pure: figures in, Markdown out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from parts.tables import busy_mb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from parts.servers import Server
    from parts.tables import Figures

_OURS = "Sluice"


@dataclass(frozen=True)
class Mark:
    """One figure beside its floor, which is to be reached, and its goal, which is hoped for.

    Attributes:
        form: how the figures are written.
        most: whether the figure is to be at most so much; else at least.
    """

    what: str
    floor: float
    goal: float
    measured: float
    form: str = "{:g}"
    most: bool = True

    @property
    def missed(self) -> bool:
        """Whether not even the floor was reached."""
        return not self._within(self.floor)

    def _within(self, bound: float) -> bool:
        return self.measured <= bound if self.most else self.measured >= bound

    def row(self) -> str:
        """Return it as a row of a table."""
        verdict = "goal" if self._within(self.goal) else "**missed**" if self.missed else "floor"
        floor, goal = self.form.format(self.floor), self.form.format(self.goal)
        measured = self.form.format(float(f"{self.measured:.3g}"))
        return f"| {self.what} | {floor} | {goal} | {measured} | {verdict} |"


def marks(found: Figures, servers: Sequence[Server]) -> list[Mark]:
    """Return what can be told from the figures that were measured."""
    return [*_calls(found), *_streams(found), *_idle(found), *_programs(found, servers)]


def table(told: Sequence[Mark]) -> str:
    """Return them as Markdown."""
    head = "| of one worker, where nothing else is said | floor | goal | measured | reached |\n|---|---|---|---|---|"
    return "\n".join([head, *(each.row() for each in told)]) if told else ""


def _calls(found: Figures) -> Iterator[Mark]:
    for at in (16, 64):
        ours = found.get((_OURS, "calls", at))
        if ours is None:
            continue
        for peer, floor, goal, form in (
            ("nginx", 0.08, 0.11, "{:.1%}"),
            ("LiteLLM", 45, 60, "{:g}x"),
            ("Portkey", 5, 7, "{:g}x"),
        ):
            if its := found.get((peer, "calls", at)):
                ratio = ours["calls_s"] / max(its["calls_s"], 1)
                yield Mark(f"calls at {at}, of {peer}'s", floor, goal, ratio, form, most=False)
        if several := found.get((f"{_OURS}, 2 workers", "calls", at)):
            ratio = several["calls_s"] / max(ours["calls_s"], 1)
            yield Mark(f"calls at {at}, of two workers against one", 1.7, 1.9, ratio, "{:g}x", most=False)
    if ours := found.get((_OURS, "calls", 64)):
        yield Mark("p99 at 64, against p50", 5, 3, ours["p99"] / max(ours["p50"], 1), "{:g}x")
    alone = [found.get((name, "calls", 1)) for name in (_OURS, "nginx", "direct")]
    if all(alone):
        ours, nginx, direct = (each["p50"] for each in alone if each)
        yield Mark(
            "p50 added to one call at a time, of nginx's", 3, 2.4, (ours - direct) / max(nginx - direct, 1), "{:g}x"
        )


def _streams(found: Figures) -> Iterator[Mark]:
    ours, nginx = (found.get((name, "streams", 16)) for name in (_OURS, "nginx"))
    if ours and nginx:
        ratio = ours["events_s"] / max(nginx["events_s"], 1)
        yield Mark("events of streams at 16, of nginx's", 0.8, 1.5, ratio, "{:g}x", most=False)
    ours, nginx = (found.get((name, "paced", 64)) for name in (_OURS, "nginx"))
    for each in ("p50", "p99") if ours and nginx else ():
        ratio = ours[f"delay_{each}"] / max(nginx[f"delay_{each}"], 1)
        yield Mark(f"{each} of the delay of paced streams, of nginx's", 2, 1, ratio, "{:g}x")


def _idle(found: Figures) -> Iterator[Mark]:
    for (name, part, count), figures in found.items():
        if (name, part) == (_OURS, "idle"):
            yield Mark(f"an idle stream, of {count:,}", 60, 30, figures["kb_each"], "{:g} kB")


def _programs(found: Figures, servers: Sequence[Server]) -> Iterator[Mark]:
    ours = next((each for each in servers if each.name == _OURS), None)
    if ours is None:
        return
    yield Mark("start", 1.2, 0.8, ours.ready_s, "{:g} s")
    yield Mark("memory before load", 80, 60, ours.idle_mb, "{:g} MB")
    if busy := busy_mb(found, _OURS):
        yield Mark("memory under load", 110, 80, busy, "{:g} MB")
