"""The life of the engine's process: one for all workers, started again with patience, never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.importorskip("llguidance", reason="the extra 'local' is not installed")

from app.backend.engine_host import EngineHost
from app.errors import BackendError
from tests.conftest import Start
from tests.engine import tiny
from tests.local import Served, alive, serving, serving_child, wait_until
from tests.serving import workers_of


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("models") / "qwen", tiny.QWEN)


@contextlib.asynccontextmanager
async def _host(folder: Path, **env: str) -> AsyncIterator[EngineHost]:
    host = EngineHost(folder, lambda: {"MLX_ALLOW_ANY": "true", **env})
    try:
        yield host
    finally:
        await host.close()


def _pid(host: EngineHost) -> int:
    assert host._process is not None
    return host._process.pid


async def test_many_who_ask_at_once_get_one_engine_and_the_last_to_leave_ends_it(tmp_path: Path) -> None:
    async with _host(tmp_path) as one:
        async with _host(tmp_path) as two:
            await asyncio.gather(*(host.ensure() for host in (one, two) * 8))
            starters = [host for host in (one, two) if host._process is not None]
            assert len(starters) == 1
            pid = _pid(starters[0])
            assert stat.S_IMODE(one.socket.stat().st_mode) == 0o600
        assert alive(pid)
        assert await one.answers()
    await asyncio.to_thread(wait_until, lambda: not alive(pid))


async def test_an_engine_that_dies_at_once_is_not_hammered_and_says_why(tmp_path: Path) -> None:
    async with _host(tmp_path, MLX_BATCH="many") as host:
        messages = []
        for _ in range(200):
            with pytest.raises(BackendError) as caught:
                await host.ensure()
            messages.append(caught.value.message)
            assert (caught.value.code, caught.value.status) == ("engine_unavailable", 503)
            assert (caught.value.retry_after_s or 0) >= 1
        assert host.restarts <= 3
        assert messages[0] == "The local engine did not start: wrong settings; its log says which."
        assert "starts again in" in messages[-1]
        assert (
            host.trouble == f"the local engine ended {host.restarts} times in a row: wrong settings; its log says which"
        )


async def test_another_workers_engine_that_cannot_start_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with _host(tmp_path, MLX_BATCH="many") as one, _host(tmp_path, MLX_BATCH="many") as two, asyncio.timeout(20):
        ended = await asyncio.gather(*(host.ensure() for host in (one, two) * 4), return_exceptions=True)
        assert all(isinstance(each, BackendError) for each in ended)


async def test_a_killed_engine_is_told_apart_from_one_that_lives(tmp_path: Path) -> None:
    async with _host(tmp_path) as host:
        await host.ensure()
        assert await host.why_gone() is None
        os.kill(_pid(host), signal.SIGKILL)
        why = "killed, most likely for want of memory (lower MLX_MEMORY_GB)"
        assert await host.why_gone() == host.last_exit == why
        assert host.trouble is None  # once is an accident
        await host.ensure()
        assert await host.answers()


async def test_a_kill_costs_no_start_and_is_told(tmp_path: Path) -> None:
    async with _host(tmp_path) as host:
        await host.ensure()
        engine = _pid(host)
        before = engine
        for kills in range(1, 4):
            await asyncio.to_thread(wait_until, lambda before=before: serving_child(engine) not in {engine, before})
            before = serving_child(engine)
            os.kill(before, signal.SIGKILL)
            assert await host.why_gone() == "killed, most likely for want of memory (lower MLX_MEMORY_GB)"
            await asyncio.to_thread(wait_until, lambda kills=kills: host.restarts == kills)
            assert (await host.answers(), host.trouble) == (True, None)  # its socket was never closed
        await asyncio.to_thread(wait_until, lambda: serving_child(engine) not in {engine, before})
        os.kill(serving_child(engine), signal.SIGKILL)  # too many in a row: the next start is the host's
        await asyncio.to_thread(wait_until, lambda: not alive(engine))


async def test_callers_readiness_and_the_next_candidate_know_of_an_engine_that_keeps_dying(
    qwen: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.upstream import Upstream

    monkeypatch.setenv("MLX_BATCH", "many")
    async with (
        Upstream() as up,
        start(f"MODEL_SMALL=mlx/{qwen},up/large\nMLX_ENABLED=true\nRETRIES=0\n", up=up) as sluice,
    ):
        for _ in range(3):
            answer = await sluice.chat("small")
            assert answer.headers["x-sluice-target"] == "up/large"
        alone = await sluice.chat(f"mlx/{qwen}")
        assert alone.status_code == 503
        assert "wrong settings" in alone.json()["error"]["message"]
        ready = (await sluice.client.get("/health/ready")).json()
        assert ready["status"] == "degraded"
        assert "wrong settings" in ready["backends"]["mlx"]["why"]


def _workers(served: Served) -> list[int]:
    """Return the pids of the workers."""
    return workers_of(served.process.pid)


def _holders(engine: int) -> set[int]:
    """Return who holds the pipe open that keeps the engine alive."""
    pipe = Path(f"/proc/{engine}/fd/0").readlink()
    found = set()
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if each.name.isdigit() and any(fd.readlink() == pipe for fd in (each / "fd").iterdir()):
                found.add(int(each.name))
    return found - {engine}


def _serve_both(served: Served, model: str) -> int:
    """Call until both workers have used the engine, and return its pid."""
    assert served.chat(model, max_tokens=2).status_code == 200
    (engine,) = served.engine_pids()

    def both() -> bool:
        served.http.headers["connection"] = "close"
        served.chat(model, max_tokens=2)
        return _holders(engine) >= set(_workers(served))

    wait_until(both)
    assert len(_workers(served)) == 2
    return engine


def test_two_workers_share_one_engine_which_survives_one_of_them(qwen: Path, tmp_path: Path) -> None:
    model = f"mlx/{qwen}"
    with serving(tmp_path, f"WORKERS=2\nMODEL_SMALL={model}\n") as served:
        engine = _serve_both(served, model)
        starter = next(
            pid for pid in _workers(served) if Path(f"/proc/{engine}/stat").read_text().split()[3] == str(pid)
        )
        os.kill(starter, signal.SIGKILL)
        wait_until(lambda: not alive(starter))
        wait_until(lambda: len(_workers(served)) == 2)
        for _ in range(8):
            assert served.chat(model, max_tokens=2).status_code == 200
        assert alive(engine)
        assert served.engine_pids() <= {engine}
        ready = served.http.get("/health/ready").json()
        assert ready["models"][model]["state"] == "ready"
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(30) == 0
        wait_until(lambda: not alive(engine))


def test_nothing_is_left_when_everything_is_killed(qwen: Path, tmp_path: Path) -> None:
    model = f"mlx/{qwen}"
    with serving(tmp_path, f"WORKERS=2\nMODEL_SMALL={model}\n") as served:
        engine = _serve_both(served, model)
        for pid in (served.process.pid, *_workers(served)):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(engine))
