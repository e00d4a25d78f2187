"""Loading, leaving, sharing the memory, drafting: engines with settings of their own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine import tiny
from tests.engine.process import running
from tests.local import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.process import Engine


def loads(engine: Engine) -> dict[str, int]:
    return {name: about["loads"] for name, about in engine.get("/stats")["models"].items()}


def _said(text: str) -> dict[str, Any]:
    """Return the response format of an answer that is known beforehand."""
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": text}}}


def _there(engine: Engine) -> int:
    """Return how many requests an engine has, at work and waiting."""
    requests = engine.get("/stats")["requests"]
    return int(requests["running"] + requests["waiting"])


def test_with_room_for_one_alternating_requests_are_grouped_and_none_refused(folders: dict[str, Path]) -> None:
    """16 requests alternating between two models of 15 MB, room for one: two groups, not 16 loads.

    An answer of a known length goes before them, so that all are there before any of them has its turn.
    """
    one, other = tiny.make(folders["llama"].parent / "llama-b", replace(tiny.LLAMA, seed=8)), folders["llama"]
    settings = ("--models", f"{one},{other}", "--memory-gb", "0.045", "--patience-s", "30")
    with running(*settings) as engine:
        names = [str(one), str(other)] * 8
        with ThreadPoolExecutor(17) as pool:
            first = pool.submit(engine.chat, one, max_tokens=400, response_format=_said("stone " * 50))
            wait_until(lambda: _there(engine) == 1)
            answers = list(pool.map(lambda n: engine.chat(n, max_tokens=8, temperature=0), names))
            assert first.result()["usage"]["completion_tokens"] > 50
        assert all(answer["usage"]["completion_tokens"] > 0 for answer in answers)
        assert sum(loads(engine).values()) <= 4
        memory = engine.get("/stats")["memory"]
        assert memory["active_bytes"] <= memory["budget_bytes"]
        states = {engine.model(name)["state"] for name in (one, other)}
        assert states == {"ready", "not_loaded"}


def test_an_impatient_request_gets_its_turn_from_a_model_that_is_never_idle(folders: dict[str, Path]) -> None:
    qwen, llama = str(folders["qwen"]), str(folders["llama"])
    with running("--models", f"{qwen},{llama}", "--memory-gb", "0.036", "--patience-s", "0.3") as engine:
        engine.chat(qwen, max_tokens=1)
        done = False

        def keep_busy(_: int) -> None:
            while not done:
                engine.chat(qwen, max_tokens=30)

        with ThreadPoolExecutor(4) as pool:
            busy = [pool.submit(keep_busy, i) for i in range(3)]
            try:
                assert engine.chat(llama, max_tokens=2, temperature=0)["usage"]["completion_tokens"] > 0
            finally:
                done = True
            for one in busy:
                one.result()
        assert loads(engine)[llama] == 1


def test_unload_gives_the_memory_back(folders: dict[str, Path]) -> None:
    """A second round shows it: what the first use of the libraries takes stays, what a model takes does not."""
    big = str(folders["big"])
    with running("--models", big) as engine:
        engine.chat(big, max_tokens=2)
        engine.post("/admin/unload", model=big)
        base = engine.get("/stats")["memory"]["rss_bytes"]
        engine.chat(big, max_tokens=2)
        loaded = engine.get("/stats")["memory"]
        assert loaded["active_bytes"] > 50e6
        assert loaded["rss_bytes"] > base + 50e6
        state = engine.post("/admin/unload", model=big).json()
        after = engine.get("/stats")["memory"]
        assert state["state"] == "not_loaded"
        assert after["active_bytes"] < 1e6
        assert after["rss_bytes"] < 1.1 * base


def test_an_idle_model_leaves_after_its_time(qwen: Path) -> None:
    with running("--models", str(qwen), "--ttl-s", "0.2") as engine:
        engine.chat(qwen, max_tokens=1)
        for _ in range(2000):
            if engine.model(qwen)["state"] == "not_loaded":
                return
        pytest.fail("it is still there")


def test_preload_pin_and_admin_load(folders: dict[str, Path]) -> None:
    qwen, phi = str(folders["qwen"]), str(folders["phi"])
    with running("--models", f"{qwen},{phi}", "--preload", qwen) as engine:
        assert engine.post("/admin/load", model=phi, pin=True).json()["pinned"] is True
        assert engine.model(phi)["state"] == "ready"
        engine.chat(qwen, max_tokens=1)
        assert loads(engine) == {qwen: 1, phi: 1}
        events = engine.stream("/admin/load", model=qwen)
        assert events[-1] == "[DONE]"
        assert events[-2]["state"] == "ready"


def test_one_load_however_many_ask_at_once(qwen: Path) -> None:
    with running("--models", str(qwen)) as engine:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: engine.chat(qwen, max_tokens=1), range(8)))
        assert loads(engine) == {str(qwen): 1}


def test_unload_waits_for_the_requests_at_work(qwen: Path) -> None:
    with running("--models", str(qwen)) as engine, ThreadPoolExecutor(1) as pool:
        events = engine.http.stream("POST", "/v1/chat/completions", json=body(qwen, 400))
        with events as response:
            lines = response.iter_lines()
            assert next(lines)
            unloading = pool.submit(engine.post, "/admin/unload", model=str(qwen))
            assert list(lines)[-2:] == ["data: [DONE]", ""]
        assert unloading.result().json()["state"] == "not_loaded"


def body(model: Path, tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": "x"}]
    return {"model": str(model), "messages": messages, "max_tokens": tokens, "seed": 1, "stream": True}


def test_a_draft_model_changes_nothing_about_greedy_answers(folders: dict[str, Path], engine: Engine) -> None:
    qwen = folders["qwen"]
    draft = tiny.make(qwen.parent / "draft", replace(tiny.QWEN, layers=1))
    plain = [engine.content(qwen, f"draft {i}", max_tokens=40, temperature=0) for i in range(3)]
    with running("--models", str(qwen), "--draft", str(draft)) as drafted:
        with ThreadPoolExecutor(3) as pool:
            ask = pool.map(lambda i: drafted.content(qwen, f"draft {i}", max_tokens=40, temperature=0), range(3))
            assert list(ask) == plain
        schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": {"a": 1}}}}
        assert drafted.content(qwen, response_format=schema, max_tokens=60) == '{"a":1}'


def test_a_model_whose_cache_cannot_be_cut_still_keeps_its_prefixes(folders: dict[str, Path]) -> None:
    """Sliding windows: a cache serves only as a whole, so one is kept where the prompt ends."""
    sliding = tiny.make(folders["qwen"].parent / "sliding", tiny.SLIDING)
    with running("--models", str(sliding)) as engine:
        messages = [{"role": "user", "content": "a question of some length " * 12}]
        first = engine.chat(sliding, messages=messages, max_tokens=8, temperature=0)
        again = engine.chat(sliding, messages=messages, max_tokens=8, temperature=0)
        assert again["choices"] == first["choices"]
        messages.append({"role": "assistant", "content": first["choices"][0]["message"]["content"]})
        messages.append({"role": "user", "content": "more"})
        second = engine.chat(sliding, messages=messages, max_tokens=4)
        cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert cached >= first["usage"]["prompt_tokens"]


def test_prefixes_that_fall_out_of_memory_come_back_from_disk(folders: dict[str, Path], tmp_path: Path) -> None:
    qwen = folders["qwen"]
    settings = ("--models", str(qwen), "--prefix-gb", "0.001", "--prefix-dir", str(tmp_path))
    with running(*settings) as engine:
        for number in range(4):
            engine.chat(qwen, f"{number} is the number " * 100, max_tokens=2)
        prefix = engine.get("/stats")["models"][str(qwen)]["prefix"]
        assert prefix["disk_bytes"] > 0
        assert prefix["bytes"] <= 0.001 * 2**30
        again = engine.chat(qwen, "0 is the number " * 100, max_tokens=2)
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 400
        assert list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.safetensors"))
