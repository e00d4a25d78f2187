from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.call import Target
from app.settings import ConfigError, Settings, load, shadowed
from app.settings.fields import BackendOptions
from tests.conftest import Start

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def env(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def _load(env: Path, text: str) -> Settings:
    env.write_text(text)
    return load(env)


def _mistakes(env: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        _load(env, text)
    return caught.value.mistakes


def test_nothing_is_needed(env: Path) -> None:
    settings = load(env)
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert {name for name, config in settings.backend_configs.items() if config.problem is None} <= {"ollama", "mlx"}


def test_the_environment_wins_over_the_file(env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9001")
    monkeypatch.setenv("MODEL_LARGE", "")
    settings = _load(env, "PORT=9002\nMODEL_LARGE=groq/m\nMODEL_CODE=groq/c\n")
    assert (settings.port, settings.model_large, settings.model_code) == (9001, "groq/m", "groq/c")
    assert shadowed(env) == ["PORT"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("PORT=x", "PORT"),
        ("PORT=70000", "PORT"),
        ("WORKERS=0", "WORKERS"),
        ("LOG_LEVEL=loud", "LOG_LEVEL"),
        ("LOG_FORMAT=xml", "LOG_FORMAT"),
        ("UNKNOWN_MODEL=maybe", "UNKNOWN_MODEL"),
        ("MAX_BODY_MB=0", "MAX_BODY_MB"),
        ("DEADLINE_S=-1", "DEADLINE_S"),
        ("DEADLINE_S=nan", "DEADLINE_S"),
        ("CONNECT_TIMEOUT_S=inf", "CONNECT_TIMEOUT_S"),
        ("LOCAL_ONLY=perhaps", "LOCAL_ONLY"),
        ("MODEL_LARGE=gpt-4o", "MODEL_LARGE"),
        ("MODEL_LARGE=nowhere/gpt-4o", "MODEL_LARGE"),
        ("MODEL_LARGE=groq/", "MODEL_LARGE"),
        ("ROLES__MINE=nowhere/x", "ROLES__MINE"),
        ("ROLES__AUTO=groq/x", "ROLES__AUTO"),
        ("ROLES=x", "ROLES"),
        ("BACKENDS=x", "BACKENDS"),
        ("BACKENDS__MY_BOX__API_KEY=k", "BACKENDS__MY_BOX__BASE_URL"),
        ("BACKENDS__MY_BOX__BASE_URL=localhost:1234/v1", "BACKENDS__MY_BOX__BASE_URL"),
        ("BACKENDS__MY_BOX__BASE_URL=http://[::1", "BACKENDS__MY_BOX__BASE_URL"),
        ("BACKENDS__MY_BOX__BASE_URL=http://", "BACKENDS__MY_BOX__BASE_URL"),
        ("BACKENDS__MY_BOX__BASE_URL=http://h:99999/v1", "BACKENDS__MY_BOX__BASE_URL"),
        ("GROQ_BASE_URL=ftp://example.org", "GROQ_BASE_URL"),
        ("BACKENDS__MY_BOX__BASE_URL=http://h/v1\nBACKENDS__MY_BOX__SPEED=9", "BACKENDS__MY_BOX__SPEED"),
        ("BACKENDS__MY_BOX__BASE_URL=http://h/v1\nBACKENDS__MY_BOX__SLOTS=0", "BACKENDS__MY_BOX__SLOTS"),
        ("BACKENDS__B__BASE_URL=http://h/v1\nBACKENDS__B__IDLE_TIMEOUT_S=-1", "BACKENDS__B__IDLE_TIMEOUT_S"),
        ("BACKENDS__MY_BOX=http://h/v1", "BACKENDS__MY_BOX"),
        ("MODEL_ALIASES={", "MODEL_ALIASES"),
        ("MODEL_ALIASES=[]", "MODEL_ALIASES"),
        ('MODEL_ALIASES={"a": "nothing"}', "MODEL_ALIASES"),
        ('MODEL_ALIASES={"a": ""}', "MODEL_ALIASES"),
        ('MODEL_ALIASES={"a": "task/none"}', "MODEL_ALIASES"),
        ('MODEL_ALIASES={"a": 7}', "MODEL_ALIASES"),
        ('MODEL_ALIASES={"a": "embedding"}', "MODEL_ALIASES"),
        ("HOST=0.0.0.0", "API_KEYS"),
        ("HOST=::", "API_KEYS"),
        ("HOST=0.0.0.0\nAPI_KEYS= , ", "API_KEYS"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_with_the_variables_name(env: Path, text: str, named: str) -> None:
    (message,) = _mistakes(env, text)
    assert message.startswith(named)
    assert "\n" not in message


def test_each_mistake_is_told_at_once(env: Path) -> None:
    found = _mistakes(env, "PORT=x\nWORKERS=0\n")
    assert [message.partition(":")[0] for message in found] == ["PORT", "WORKERS"]
    found = _mistakes(env, "MODEL_LARGE=x\nROLES__A=y\nHOST=0.0.0.0\nBACKENDS__B__API_KEY=k\nGROQ_BASE_URL=x\n")
    assert {message.partition(":")[0] for message in found} == {
        "MODEL_LARGE", "ROLES__A", "API_KEYS", "BACKENDS__B__BASE_URL", "GROQ_BASE_URL",
    }  # fmt: skip


@pytest.mark.parametrize("raw", [b"PORT=\xff\xfe\n", b"\x00\x01\x02", b"\xff" * 99])
def test_a_file_that_is_no_text_is_a_mistake_or_nothing(env: Path, raw: bytes) -> None:
    env.write_bytes(raw)
    try:
        load(env)
    except ConfigError as error:
        assert len(error.mistakes) == 1  # noqa: PT017 - either is right, a crash is not


@pytest.mark.parametrize(
    "text", ["BACKENDS__B__API_KEY=very-secret\nBACKENDS__B__SLOTS=0", "ADMIN_KEY=very-secret\nPORT=x"]
)
def test_no_secret_is_in_a_message(env: Path, text: str) -> None:
    assert "very-secret" not in str(_mistakes(env, text))


@pytest.mark.parametrize("more", ["API_KEYS=k", "ALLOW_ANONYMOUS=true"])
def test_the_network_is_served_with_keys_or_on_purpose(env: Path, more: str) -> None:
    assert _load(env, f"HOST=0.0.0.0\n{more}\n").host == "0.0.0.0"


def test_a_backend_of_the_operator(env: Path) -> None:
    settings = _load(
        env,
        "BACKENDS__MY_BOX__BASE_URL=http://10.0.0.1:8000/v1/\nBACKENDS__MY_BOX__API_KEY=12345\n"
        "BACKENDS__MY_BOX__IDLE_TIMEOUT_S=3\nBACKENDS__MY_BOX__PREFILL=true\nROLES__MY_ROLE=my-box/a@50,groq/b\n",
    )
    config = settings.backend_configs["my-box"]
    assert (config.base_url, config.api_key, config.problem) == ("http://10.0.0.1:8000/v1", "12345", None)
    assert (config.limits.idle_s, config.limits.connect_s, config.prefill) == (3, 5, True)
    assert [(choice.target, choice.weight) for choice in settings.chains["my-role"]] == [
        (Target("my-box", "a"), 50),
        (Target("groq", "b"), None),
    ]


@pytest.mark.parametrize(
    ("text", "backend", "problem"),
    [
        ("", "groq", "set GROQ_API_KEY"),
        ("GROQ_API_KEY=k", "groq", None),
        ("GROQ_API_KEY=k\nGROQ_ENABLED=false", "groq", "GROQ_ENABLED is false"),
        ("GROQ_API_KEY=k\nBACKENDS__GROQ__ENABLED=false", "groq", "BACKENDS__GROQ__ENABLED is false"),
        ("GROQ_BASE_URL=http://127.0.0.1:1/v1", "groq", None),
        ("CLOUDFLARE_API_TOKEN=k", "workers-ai", "set CLOUDFLARE_ACCOUNT_ID"),
        ("CLOUDFLARE_ACCOUNT_ID=a", "workers-ai", "set CLOUDFLARE_API_TOKEN"),
        ("CLOUDFLARE_ACCOUNT_ID=a\nCLOUDFLARE_API_TOKEN=k", "workers-ai", None),
        ("CLOUDFLARE_ACCOUNT_ID=a\nWORKERS_AI_API_KEY=k", "workers-ai", None),
        ("GROQ_API_KEY=k\nLOCAL_ONLY=true", "groq", "LOCAL_ONLY is true and it is not on this machine"),
        ("LOCAL_ONLY=true", "ollama", None),
        ("OLLAMA_BASE_URL=http://h/v1\nLOCAL_ONLY=true", "ollama", "LOCAL_ONLY is true and it is not on this machine"),
    ],
)  # fmt: skip
def test_the_one_thing_to_set(env: Path, text: str, backend: str, problem: str | None) -> None:
    assert _load(env, text).backend_configs[backend].problem == problem


def test_secrets_are_masked(env: Path) -> None:
    settings = _load(
        env,
        "API_KEYS=secret-1\nADMIN_KEY=secret-2\nGROQ_API_KEY=secret-3\nREDIS_URL=redis://u:secret-4@h/0\n"
        "BACKENDS__B__BASE_URL=http://u:secret-5@h/v1\n"
        "BACKENDS__C__BASE_URL=http://h/v1\nBACKENDS__C__API_KEY=secret-6\n",
    )
    for shown in (str(settings.masked()), str(settings.backend_configs["groq"])):
        assert "secret-" not in shown
    assert settings.masked()["redis_url"] == "redis://***@h/0"


def test_a_user_in_an_address_beside_a_key_is_refused(env: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(env, "BACKENDS__B__BASE_URL=http://u:p@h/v1\nBACKENDS__B__API_KEY=k\n")
    assert caught.value.mistakes == ["B: its address has a user and it has an API key as well; leave one of them out"]


async def test_admin_config_is_masked(start: Start) -> None:
    async with start(
        "GROQ_API_KEY=very-secret\nBACKENDS__B__BASE_URL=http://u:very-secret@h/v1\nWORKERS=1\n"
    ) as sluice:
        answer = await sluice.client.get("/admin/config")
    assert "very-secret" not in answer.text
    assert (answer.json()["ok"], answer.json()["settings"]["workers"]) == (True, 1)


def test_the_example_names_every_setting_and_nothing_else() -> None:
    example = (_ROOT / ".env.example").read_text()
    named = set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]*)=", example, re.MULTILINE))
    nested = {name for name in named if "__" in name}
    assert {name.lower() for name in named - nested} == set(Settings.model_fields) - {"backends", "parity", "roles"}
    options = set(re.findall(r"BACKENDS__[A-Z_]+?__([A-Z_]+)=", example))
    assert options <= {name.upper() for name in BackendOptions.model_fields}
    _, _, own = example.partition("BACKENDS__MY_BOX")
    assert [name for name in BackendOptions.model_fields if name.upper() not in own] == []
    assert any(name.startswith("ROLES__") for name in nested)


@pytest.mark.parametrize("command", ["check", "serve"])
def test_the_command_line_says_what_is_wrong_and_exits_with_2(env: Path, command: str) -> None:
    env.write_text("PORT=x\nLOG_LEVEL=loud\n")
    done = subprocess.run(
        [sys.executable, "-m", "app", command, "--env-file", str(env)],
        cwd=_ROOT, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == ["PORT", "LOG_LEVEL"]


def test_check_says_that_all_is_well(env: Path) -> None:
    env.write_text("MODEL_LARGE=ollama/m\nBACKENDS__B__BASE_URL=http://u:very-secret@h/v1\n")
    done = subprocess.run(
        [sys.executable, "-m", "app", "check", "--env-file", str(env)],
        cwd=_ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert "ollama/m" in done.stderr
    assert "very-secret" not in done.stderr
