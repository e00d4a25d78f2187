"""What a caller gets when a backend misbehaves: the whole table, plain and streamed, with a fallback and without."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.failure_play import Played, call, play
from tests.failure_table import ROWS, SETTINGS, SHORT, Row
from tests.processes import served

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Running, Start
    from tests.upstream import Upstream

CASES = [(row, stream, spare) for row in ROWS for stream in (False, True) for spare in (False, True)]


def verdict(row: Row, played: Played, *, stream: bool, spare: bool) -> list[str]:
    """Return what is not as the row says."""
    expected = (row.stream if stream else row.plain)[spare]
    got = played.got
    starts = played.starts()
    found = {
        "outcome": (got.outcome, expected.outcome),
        "tries": (len(played.tries), expected.tries),
        "spares": (len(played.spares), expected.spares),
        "in time": (got.wall_s < expected.within_s, True),
        "told": (row.told in got.error.get("message", row.told), True),
        "gap": (len(starts) < 2 or starts[1] - starts[0] >= row.gap_s, True),
        "burst": (most_in(starts, 3.0) <= 4, True),
    }
    where = f"{row.name} {'stream' if stream else 'plain'} {'with' if spare else 'without'} fallback"
    wrong = [f"{where}: {name} is {is_!r}, not {want!r}" for name, (is_, want) in found.items() if is_ != want]
    return [f"{each} ({got.wall_s:.2f} s, {got.headers.get('x-sluice-attempts')}, {got.error})" for each in wrong]


def most_in(starts: list[float], window_s: float) -> int:
    """Return the most starts that lie in any window; the slack is for rounding."""
    return max((sum(begin <= at < begin + window_s - 0.01 for at in starts) for begin in starts), default=0)


async def test_every_row_of_the_table(up: Upstream, start: Start) -> None:
    # A limit well above what a busy machine needs for an answer, so that only what is meant to be slow is too slow.
    async with start(SETTINGS.format(url=up.url) + SHORT.format(limit_s=1.5), up=up) as sluice:
        room = asyncio.Semaphore(16)
        for backend in ("up", "pre"):  # what is imported by the first call of all is not to count
            for stream in (False, True):
                assert (await call(sluice.client, f"{backend}/well", stream=stream)).outcome == "whole"

        async def check(row: Row, *, stream: bool, spare: bool) -> list[str]:
            async with room:
                played = await play(sluice.client, up, row, stream=stream, spare=spare)
            return verdict(row, played, stream=stream, spare=spare)

        found = await asyncio.gather(*(check(row, stream=stream, spare=spare) for row, stream, spare in CASES))
        wrong = [each for some in found for each in some]
        assert not wrong, "\n".join(wrong)
        assert (await call(sluice.client, "up/well", stream=True)).outcome == "whole"
        assert_settled(sluice)
        await up.wait_for(lambda _: up.active == 0)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_the_default_limits(up: Upstream, start: Start) -> None:
    """First content 10 s, silence 15 s, and the whole answer of F6, F7 and F9 within their sum."""
    async with start("LOG_LEVEL=error\n", up=up) as sluice:
        sluice.client.timeout = 200
        kinds = {"a-hang": (10, 15), "b-slow:20": (10, 15), "c-stall:3": (15, 20), "d-drip": (10, 15)}
        got = await asyncio.gather(
            *(call(sluice.client, f"up/{model}", stream=True, models=["up/well"]) for model in kinds),
            call(sluice.client, "up/e-hang", stream=False, models=["up/well"]),
        )
        assert {each.outcome for each in got} == {"whole"}
        for each, (least, most) in zip(got, [*kinds.values(), (120, 125)], strict=True):
            assert least <= each.wall_s < most


@pytest.mark.parametrize("fault", ["endless", "longline", "bighead:4096", "endlesshead", "bytes:1"])
async def test_no_backend_can_fill_the_memory(up: Upstream, tmp_path: Path, fault: str) -> None:
    text = f"BACKENDS__UP__BASE_URL={up.url}\nRETRIES=0\nMAX_ANSWER_MB=16\n"
    async with served(tmp_path / ".env", text) as gateway:
        before = gateway.rss_mb()
        got = await asyncio.gather(*(call(gateway.client, f"up/m{n}-{fault}", stream=bool(n % 2)) for n in range(4)))
        # Each may hold one answer of MAX_ANSWER_MB, and a copy where its parts are joined.
        assert gateway.rss_mb() - before < 4 * 16 * 2
        assert all(each.wall_s < 60 for each in got)
        assert (await call(gateway.client, "up/well", stream=True)).outcome == "whole"


def assert_settled(sluice: Running) -> None:
    assert [lane.target for lane in sluice.gateway.lanes if lane.gate.in_use or lane.gate.waiting] == []


@pytest.mark.parametrize(("stream", "spare"), [(False, False), (True, False), (False, True), (True, True)])
async def test_no_row_is_missing(*, stream: bool, spare: bool) -> None:
    names = {int("".join(filter(str.isdigit, row.name))) for row, *case in CASES if case == [stream, spare]}
    assert names == set(range(1, 21)) - {
        15,
        16,
    }  # these two are stories of several calls: see test_rescue, test_dispatch
