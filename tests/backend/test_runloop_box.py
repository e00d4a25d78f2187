"""The box by itself, over scripted fakes of Runloop and Ollama and a clock in the test's hand."""

# ruff: noqa: ARG002 - fakes have the parameters of what they stand for
from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from app.backend.runloop_box import Box, BoxView, has, next_step, oldest, rest_s
from app.config import DevboxOptions
from app.errors import BackendError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "qwen"


@dataclass
class FakeControl:
    """Runloop, as scripted: the statuses that looking at the one box shows, in order; the last one stays."""

    statuses: list[str]
    told: list[str] = field(default_factory=list)
    failure: BackendError | None = None

    async def view(self, box_id: str) -> BoxView:
        self.told.append("view")
        if self.failure is not None:
            raise self.failure
        return self._next()

    def _next(self) -> BoxView:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return BoxView("dbx_1", status, idle_s=100)

    async def mine(self) -> list[BoxView]:
        return []

    async def create(self) -> BoxView:
        raise AssertionError

    async def resume(self, box_id: str) -> None:
        self.told.append("resume")

    async def settled(self, box_id: str, statuses: tuple[str, ...]) -> BoxView:
        self.told.append("settled")
        return self._next()

    async def shutdown(self, box_id: str) -> None:
        self.told.append("shutdown")

    async def keep_alive(self, box_id: str) -> None:
        self.told.append("keep_alive")

    async def close(self) -> None:
        self.told.append("close")


@dataclass
class FakeDoor:
    """An Ollama that loads once ``go`` is set."""

    known: frozenset[str] = frozenset({MODEL})
    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    loads: int = 0
    pulls: int = 0
    failure: BackendError | None = None

    async def open(self, view: BoxView) -> None:
        pass

    async def models(self) -> frozenset[str]:
        return self.known

    async def pull(self, model: str, progress: Callable[[str], None]) -> None:
        self.pulls += 1
        progress("41 %")
        self.begun.set()
        await self.go.wait()

    async def load(self, model: str) -> None:
        self.loads += 1
        self.begun.set()
        if self.failure is not None:
            raise self.failure
        await self.go.wait()


@dataclass
class Hook:
    states: list[str] = field(default_factory=list)
    wakes: list[str] = field(default_factory=list)

    def box_state(self, backend: str, state: str) -> None:
        self.states.append(state)

    def box_woken(self, backend: str, outcome: str, seconds: float) -> None:
        self.wakes.append(outcome)


class Case:
    """A box, what it talks to, and its clock."""

    def __init__(self, *statuses: str, **options: Any) -> None:
        self.now = 0.0
        self.control, self.door, self.hook = FakeControl(list(statuses)), FakeDoor(), Hook()
        settings = DevboxOptions("http://api", "key", devbox_id="dbx_1", **options)
        self.box = Box("runloop", settings, self.control, self.door, self.hook, lambda: self.now)

    async def prepare(self, model: str = MODEL, *, alone: bool = True, pull: bool = True) -> None:
        deadline = asyncio.get_running_loop().time() + 60
        await self.box.prepare(model, deadline, pull=pull, alone=alone)


def test_every_status_has_a_next_step() -> None:
    passing = {"scheduled", "queued", "provisioning", "initializing", "suspending", "resuming", "one of tomorrow"}
    assert {next_step(status) for status in passing} == {"wait"}
    assert [next_step(each) for each in ("running", "suspended", "failure", "shutdown")] == [
        *("reach", "resume", "gone", "gone")
    ]


def test_processes_agree_on_the_oldest() -> None:
    views = [BoxView("b", "running", 2), BoxView("c", "running", 1), BoxView("a", "running", 1)]
    assert oldest(views) == oldest(views[::-1]) == BoxView("a", "running", 1)
    assert oldest([]) is None


def test_rests_grow_and_end() -> None:
    assert [rest_s(count) for count in (1, 2, 3, 7, 50)] == [5, 10, 20, 300, 300]


def test_a_name_without_a_tag_is_the_latest() -> None:
    assert has(frozenset({"a:latest"}), "a")
    assert not has(frozenset({"a:latest"}), "a:7b")


async def test_states_on_the_way_from_suspending_to_ready() -> None:
    case = Case("suspending", "suspended", "running")
    case.door.known = frozenset()
    waiting = asyncio.create_task(case.prepare())
    await case.door.begun.wait()
    assert case.box.shown() == ("pulling", "qwen 41 %")
    case.door.go.set()
    await waiting
    assert case.hook.states == ["resuming", "pulling", "ready"]
    assert case.hook.wakes == ["ok"]
    assert case.control.told == ["view", "settled", "resume", "settled"]
    await case.box.close()


async def test_many_wait_for_one_wake_and_one_that_leaves_ends_it_for_nobody() -> None:
    case = Case("running")
    waiting = [asyncio.create_task(case.prepare()) for _ in range(50)]
    await case.door.begun.wait()
    waiting[0].cancel()
    case.door.go.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [None] * 49
    assert (case.control.told, case.door.loads) == (["view"], 1)
    await case.box.close()


async def test_a_failed_wake_rests_and_each_caller_gets_an_error_of_its_own() -> None:
    case = Case("running")
    case.control.failure = BackendError(Reason.NOT_READY, "broken", status=503)
    errors = await asyncio.gather(*(case.prepare() for _ in range(3)), return_exceptions=True)
    assert len({id(error) for error in errors}) == 3
    for at, looks in ((4.9, 1), (5.1, 2), (14.9, 2), (15.2, 3)):
        case.now = at
        with pytest.raises(BackendError, match="broken"):
            await case.prepare()
        assert case.control.told.count("view") == looks
    assert case.box.shown() == ("failed", "broken")
    await case.box.close()


async def test_a_model_that_does_not_load_leaves_the_others_alone() -> None:
    case = Case("running")
    case.door.known = frozenset({"good", "bad"})
    case.door.go.set()
    await case.prepare("good")
    case.door.failure = BackendError(Reason.NOT_READY, "too large", status=503)
    with pytest.raises(BackendError, match="too large"):
        await case.prepare("bad")
    await case.prepare("good")
    assert case.door.loads == 2
    await case.box.close()


async def test_models_that_no_role_names_are_not_downloaded() -> None:
    case = Case("running")
    for _ in range(2):
        with pytest.raises(BackendError) as caught:
            await case.prepare("huge", pull=False)
        assert caught.value.reason is Reason.MODEL_MISSING
    assert (case.door.pulls, case.control.told) == (0, ["view"])
    await case.box.close()


async def test_a_fresh_box_is_trusted_and_an_idle_one_looked_at() -> None:
    case = Case("running")
    case.door.go.set()
    await case.prepare()
    case.now = 49
    await case.prepare()
    assert case.control.told == ["view"]
    case.now = 51
    await case.prepare()
    assert case.control.told == ["view", "view"]
    case.now = 200
    assert case.box.shown()[0] == "suspended"
    await case.box.close()


async def test_nobody_waits_where_waiting_is_not_wanted() -> None:
    case = Case("suspended", "running", wait=False)
    with pytest.raises(BackendError) as caught:
        await case.prepare(alone=False)
    assert caught.value.reason is Reason.COLD
    case.door.go.set()
    await case.prepare(alone=True)
    assert case.control.told.count("resume") == 1
    await case.box.close()


async def test_late_comers_do_not_wait_anew() -> None:
    case = Case("running", wake_timeout_s=30)
    first = asyncio.create_task(case.prepare())
    await case.door.begun.wait()
    case.now = 31
    with pytest.raises(BackendError) as caught:
        await case.prepare(alone=False)
    assert caught.value.reason is Reason.COLD
    case.door.go.set()
    await first
    await case.box.close()


async def test_a_box_that_goes_in_circles_is_given_up() -> None:
    case = Case("suspending", "suspending")
    with pytest.raises(BackendError, match="suspending"):
        await case.prepare()
    await case.box.close()
