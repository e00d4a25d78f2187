"""The clients, each in an environment of its own, against a real gateway in front of the scripted upstream."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import running
from tests.upstream import Upstream

HERE = Path(__file__).parent
FEATURES = ("chat", "stream", "tools", "structured", "vision", "multi-turn", "errors")
SETTINGS = "MLX_ENABLED=false\nRETRIES=0\nCACHE=off\nLOG_LEVEL=error\nRESPONSES_STORE=true\n"
_NPM = ("openai", "ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible", "zod", "node@22")
_SUMMARY = re.compile(r"(\d+) (passed|failed|skipped|xfailed|xpassed|errors?)")
_LIMIT_S = 600
_PYTEST = (
    *("-q", "-p", "no:cacheprovider", "--tb=short", "-rfE", "-o", "asyncio_mode=auto"),
    *("-o", "asyncio_default_test_loop_scope=session", "-o", "asyncio_default_fixture_loop_scope=session"),
)
"""One event loop for a whole suite: LangChain keeps its HTTP client beyond a test."""


@dataclass(frozen=True, slots=True)
class Client:
    """One client: what to install, and its scripts. Those of npm share one project."""

    name: str
    packages: tuple[str, ...] = ()
    script: str = ""
    suites: str = ""

    @property
    def npm(self) -> bool:
        return self.script.endswith(".mjs")


CLIENTS = (
    Client("openai", ("openai",), "client_openai.py"),
    Client("anthropic", ("anthropic",), "client_anthropic.py"),
    Client("openai-agents", ("openai-agents",), "client_openai_agents.py"),
    Client("pydantic-ai", ("pydantic-ai-slim[openai,anthropic]",), "client_pydantic_ai.py"),
    Client(
        "langchain",
        ("langchain-openai", "langchain-tests", "pytest"),
        "client_langchain.py",
        "langchain_suites.py",
    ),
    Client("llama-index", ("llama-index-llms-openai-like",), "client_llama_index.py"),
    Client("instructor", ("instructor",), "client_instructor.py"),
    Client("npm-openai", _NPM, "client_npm_openai.mjs"),
    Client("ai-sdk", _NPM, "client_ai_sdk.mjs"),
)


@dataclass(slots=True)
class Result:
    """What came of one client."""

    client: Client
    versions: dict[str, str] = field(default_factory=dict)
    cells: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    suites: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    told: str = ""


def install(client: Client, cache: Path) -> Path:
    """Make a client's environment where there is none yet; return the program that runs its scripts.

    Raises:
        subprocess.CalledProcessError: its packages cannot be installed.
    """
    folder = cache / ("npm" if client.npm else client.name)
    program = folder / ("node_modules/node/bin/node" if client.npm else "venv/bin/python")
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    if client.npm:
        (folder / "package.json").write_text('{"private": true}')
        _call(["npm", "install", "--no-fund", "--no-audit", "--loglevel=error", *client.packages], folder)
    else:
        _call([sys.executable, "-m", "venv", str(folder / "venv")], folder)
        _call([str(program), "-m", "pip", "install", "-q", "--disable-pip-version-check", *client.packages], folder)
    return program


def _call(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, timeout=_LIMIT_S)


def _settings(up: Upstream, work: Path) -> str:
    return f"{SETTINGS}BACKENDS__UP__BASE_URL={up.url}\nDATA_DIR={work}/data\n"


async def play(clients: Iterable[Client], cache: Path, work: Path, say: Callable[[str], None]) -> list[Result]:
    """Run the clients one after the other; every body and event that they get is held against OpenAI's description."""
    results: list[Result] = []
    try:
        async with Upstream() as up, running(work / ".env", _settings(up, work)) as sluice:
            for client in clients:
                results.append(await _played(client, cache, sluice.url, up.url, say))  # noqa: PERF401 - kept on a failure
    except AssertionError as wrong:  # a body or an event that is not as described
        say(f"{wrong}")
        results[-1].failed.append(f"  {wrong}")
    return results


async def _played(client: Client, cache: Path, url: str, upstream: str, say: Callable[[str], None]) -> Result:
    say(f"{client.name} ...")
    program = await asyncio.to_thread(install, client, cache)
    result = await _run(client, program, url, upstream)
    say("\n".join(result.failed) or "  well")
    return result


async def _run(client: Client, program: Path, url: str, upstream: str) -> Result:
    result = Result(client)
    environment = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
    environment |= {"SLUICE_URL": url, "UPSTREAM_URL": upstream, "OPENAI_API_KEY": "any", "OPENAI_BASE_URL": url}
    folder = HERE
    if client.npm:
        folder = program.parents[3]
        for each in HERE.glob("*.mjs"):
            shutil.copy(each, folder)  # a module finds its packages beside itself
    told, errors, status = await _output(program, [str(folder / client.script)], folder, environment)
    for line in told.splitlines():
        if line.startswith("{"):
            _take(result, json.loads(line))
    if not result.cells or status not in {0, 1}:
        result.failed.append(f"  the script ended with {status}")
    result.told = errors
    if client.suites:
        await _suites(result, program, environment)
    return result


def _take(result: Result, told: dict[str, Any]) -> None:
    if "versions" in told:
        result.versions |= told["versions"]
        return
    result.cells[told["row"], told["feature"]] = told
    if told["ok"] is False:
        result.failed.append(f"  {told['row']}, {told['feature']}: {told['note']}")


async def _suites(result: Result, program: Path, environment: dict[str, str]) -> None:
    """Run a client's own test suites; a failure is told by its test's name."""
    folder = program.parents[2]
    shutil.copy(HERE / result.client.suites, folder)  # away from the conftest of our own tests
    told, _, _ = await _output(program, ["-m", "pytest", *_PYTEST, result.client.suites], folder, environment)
    result.told += told[-8000:]
    last = told.strip().splitlines()[-1] if told.strip() else ""
    counts = ", ".join(f"{number} {what}" for number, what in _SUMMARY.findall(last))
    result.suites.append(counts or "did not run")
    result.failed += [f"  {line}" for line in told.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not counts:
        result.failed.append("  the suites did not run")


async def _output(
    program: Path, arguments: list[str], folder: Path, environment: dict[str, str]
) -> tuple[str, str, int]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        str(program), *arguments, cwd=folder, env=environment, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(_LIMIT_S):
            told, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return "", "it did not end", -1
    return told.decode(), errors.decode(), process.returncode or 0


def table(results: Iterable[Result]) -> str:
    """Return the clients and what works as Markdown."""
    lines = [f"| client | {' | '.join(FEATURES)} |", f"|---|{'---|' * len(FEATURES)}"]
    for result in results:
        rows = dict.fromkeys(row for row, _ in result.cells)
        lines += [
            f"| {row} | {' | '.join(_cell(result.cells.get((row, feature))) for feature in FEATURES)} |" for row in rows
        ]
    return "\n".join(lines)


def _cell(told: dict[str, Any] | None) -> str:
    return {True: "yes", False: "**no**", None: "–"}[told["ok"] if told else None]


def versions(results: Iterable[Result]) -> str:
    """Return what was installed, a line for each package."""
    found = {f"{name} {version}" for result in results for name, version in result.versions.items()}
    return "\n".join(f"- {each}" for each in sorted(found))
