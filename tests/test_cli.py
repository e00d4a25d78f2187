"""The command line as people run it: real processes, exit statuses, no tracebacks."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from app.__main__ import main
from app.cli.commands import cli
from tests import forks
from tests.sdk import ROLES

if TYPE_CHECKING:
    from tests.conftest import Running, Start
    from tests.upstream import Upstream


async def sluice_cli(*words: str, cwd: Path, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run ``sluice``; return status, output and errors."""
    done = await asyncio.to_thread(forks.run, "app", *words, cwd=cwd, env=os.environ | (env or {}))
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


async def test_roles_shown_set_and_undone(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("GROQ_API_KEY=secret\n")
    status, out, _ = await sluice_cli("roles", "--json", cwd=tmp_path)
    found = {each["role"]: each for each in json.loads(out)}
    assert (status, found["polish"]["serves"]) == (0, "groq/llama-3.3-70b-versatile")
    assert (found["polish"]["variable"], found["polish"]["shadowed"]) == ("MODEL_POLISH", False)
    assert "secret" not in out

    status, out, err = await sluice_cli("roles", "set", "analysis=groq/other", cwd=tmp_path)
    assert (status, err) == (0, "")
    assert out == ".env: MODEL_ANALYSIS (not set) -> groq/other\n"
    assert env.read_text() == "GROQ_API_KEY=secret\nMODEL_ANALYSIS=groq/other\n"

    status, out, _ = await sluice_cli("roles", "undo", cwd=tmp_path)
    assert (status, env.read_text()) == (0, "GROQ_API_KEY=secret\n")
    status, _, err = await sluice_cli("roles", "undo", cwd=tmp_path)
    assert (status, "nothing to undo" in err) == (1, True)


async def test_refusals_say_why(tmp_path: Path) -> None:
    status, _, err = await sluice_cli("roles", "set", "CODE=nobody/x", cwd=tmp_path)
    assert (status, "there is no backend 'nobody'" in err) == (1, True)
    shadow = {"MODEL_CODE": "groq/a"}
    status, _, err = await sluice_cli("roles", "set", "CODE=groq/b", cwd=tmp_path, env=shadow)
    assert (status, "the environment sets MODEL_CODE=groq/a" in err) == (1, True)
    (tmp_path / ".env").write_text("PORT=many\n")
    for words in (["roles"], ["route", "hi"]):
        status, _, err = await sluice_cli(*words, cwd=tmp_path)
        assert (status, "PORT" in err) == (2, True)


def test_help_names_every_command_and_a_shell_can_complete_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["sluice", *words])
        with pytest.raises(SystemExit, match="0"):
            main()
        return capsys.readouterr().out

    shown = told("--help")
    for group in ("Run", "Look without sending anything", "Ask a Sluice that runs", "Change"):
        assert f" {group} " in shown
    assert "sluice roles set analysis=" in told("roles", "--help")
    assert "complete -o default -F _sluice_completion sluice" in told("--show-completion", "bash")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    shown = CliRunner().invoke(cli, ["check", "--env-file", str(tmp_path / "typo.env")])
    assert (shown.exit_code, f"there is no file {tmp_path / 'typo.env'}" in shown.output) == (0, True)


async def test_route_in_words_and_as_json(start: Start, up: Upstream, tmp_path: Path) -> None:
    async with start(ROLES, up=up) as sluice:
        prompt = "Write a Python function that reverses a linked list."
        status, out, _ = await sluice_cli("route", prompt, cwd=tmp_path)
        assert status == 0
        for words in ("Verdict: code, complexity", "Goes to: up/code, as role code", "goes to the role polish"):
            assert words in out
        options = ("--json", "--complexity", "9", "--model", "medium", "--task", "tutorial")
        status, out, _ = await sluice_cli("route", prompt, *options, cwd=tmp_path)
        body = {"model": "medium", "messages": [{"role": "user", "content": prompt}]}
        hints = {"x-sluice-complexity": "9", "x-sluice-task": "tutorial"}
        assert json.loads(out) == (await sluice.client.post("/v1/route", json=body, headers=hints)).json()
    assert up.log == []


async def test_route_that_nobody_can_serve(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOCAL_ONLY=true\nMLX_ENABLED=false\nOLLAMA_ENABLED=false\n")
    status, out, err = await sluice_cli("route", "hi", "--model", "large", cwd=tmp_path)
    assert (status, out, "LOCAL_ONLY is true" in err) == (1, "", True)
    status, out, _ = await sluice_cli("route", "hi", "--model", "large", "--json", cwd=tmp_path)
    assert (status, json.loads(out)["error"]["code"]) == (1, "local_only")
    status, _, err = await sluice_cli("route", "hi", "--complexity", "11", cwd=tmp_path)
    assert (status, "--complexity" in err) == (2, True)


async def test_a_server_follows_within_a_second_and_loses_no_call(start: Start, up: Upstream) -> None:
    text = f"{ROLES}MODEL_ANALYSIS=up/old\n"
    async with start(text, up=up) as sluice:
        done = asyncio.Event()

        async def caller() -> list[tuple[float, int, str]]:
            found = []
            while not done.is_set():
                found.append(await one(sluice))
            return found

        callers = [asyncio.create_task(caller()) for _ in range(4)]
        await up.wait_for(lambda log: len(log) >= 20)
        status, _, _ = await sluice_cli("roles", "set", "analysis=up/new", cwd=sluice.env.parent)
        written = sluice.env.stat().st_mtime
        await up.wait_for(lambda log: any(each.model == "new" for each in log))
        done.set()
        answers = sorted(each for found in await asyncio.gather(*callers) for each in found)
        assert status == 0
        assert {code for _, code, _ in answers} == {200}
        switched = min(at for at, _, target in answers if target == "up/new")
        assert switched - written < 1
        assert {target for at, _, target in answers if at > switched + 0.2} <= {"up/new"}


async def one(sluice: Running) -> tuple[float, int, str]:
    """Make a call to the role analysis; return when it began, its status and its target."""
    import time

    at = time.time()
    answer = await sluice.chat("analysis")
    return at, answer.status_code, answer.headers["x-sluice-target"]


async def test_check_lists_prompt_files_that_are_out_of_use(tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text("---\ninputs: {}\n---\n{{ text }}\n")
    status, out, err = await sluice_cli("check", cwd=tmp_path, env={"PROMPTS_DIR": str(tmp_path)})
    assert (status, out) == (2, "")
    assert "task/mine is out of use: the template uses 'text', which is no input" in err


async def test_route_of_a_task(start: Start, up: Upstream, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"BACKENDS__UP__BASE_URL={up.url}\n{ROLES}")
    status, out, _ = await sluice_cli("route", "--model", "task/curriculum-planning", "Three songs", cwd=tmp_path)
    assert status == 0
    assert "Task: curriculum-planning@" in out
    assert "complexity 8 of 10" in out
    assert "Goes to: up/large, as role large" in out
