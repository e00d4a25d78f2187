from __future__ import annotations

import pytest

from app.engine.settings import EngineSettings, SettingsError, describe, parse


def test_the_command_line_wins_over_the_environment_over_the_defaults() -> None:
    env = {"MLX_TTL_S": "60", "MLX_MEMORY_GB": "2", "MLX_MODELS": "a/b, /m/c ,", "LOCAL_ONLY": "true"}
    settings = parse(["--ttl-s", "5", "--uds", "/tmp/x"], env)
    assert (settings.ttl_s, settings.memory_bytes, settings.offline) == (5, 2 << 30, True)
    assert settings.models == ("a/b", "/m/c")
    assert settings.batch == EngineSettings().batch


def test_whatever_the_settings_name_is_allowed_once() -> None:
    settings = parse(["--models", "a", "--preload", "b,a", "--pin", "c", "--embedding-models", "d"], {})
    assert settings.allowed == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("argv", "env", "words"),
    [
        (["--ttl-s", "soon"], {}, "--ttl-s='soon'"),
        ([], {"MLX_MEMORY_GB": "-1"}, "MLX_MEMORY_GB='-1'"),
        ([], {"MLX_ALLOW_ANY": "perhaps"}, "say true or false"),
        (["--batch", "0"], {}, "1 or more"),
        (["--host", "0.0.0.0"], {}, "ENGINE_KEY"),
    ],
)
def test_a_wrong_setting_is_named(argv: list[str], env: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse(argv, env)


def test_either_switch_turns_the_network_off_and_an_empty_one_counts_for_nothing() -> None:
    assert parse([], {"LOCAL_ONLY": "false", "HF_HUB_OFFLINE": "1"}).offline
    assert not parse([], {"LOCAL_ONLY": "", "HF_HUB_OFFLINE": "0"}).offline


def test_secrets_are_not_described() -> None:
    text = str(describe(parse([], {"ENGINE_KEY": "sesame", "HF_TOKEN": "hf_x"})))
    assert "sesame" not in text
    assert "hf_x" not in text
