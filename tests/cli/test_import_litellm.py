"""``sluice import-litellm``: what LiteLLM's configuration means is what Sluice then does."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from app.cli.litellm import convert
from app.settings import load
from tests.cli.test_chat import sluice

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: azure/gpt-4o-eu, api_base: "https://eu.openai.azure.com/", api_key: os.environ/AZ, rpm: 6}
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY, rpm: 4}
  - model_name: claude
    litellm_params: {model: claude-sonnet-4-5, api_key: "sk-'lit$er al"}
  - model_name: bed
    litellm_params: {model: bedrock/anthropic.claude-v2}
  - {model_name: one, litellm_params: {model: hosted_vllm/qwen, api_base: "http://192.0.2.7:8000/v1"}}
  - {model_name: two, litellm_params: {model: hosted_vllm/qwen, api_base: "http://192.0.2.8:8000/v1"}}
  - {model_name: "*", litellm_params: {model: "*"}}
litellm_settings: {request_timeout: 30, cache: true, fallbacks: [{"gpt-4o": ["claude"]}, {"none": ["claude"]}]}
router_settings: {num_retries: 3, redis_host: localhost, redis_password: "p@ss"}
general_settings: {master_key: sk-1234, database_url: "postgresql://x"}
"""


def _aliases(document: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = orjson.loads(convert(document).settings["MODEL_ALIASES"])
    return found


async def test_the_file_it_writes_is_what_sluice_reads(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    status, out, err = await sluice("import-litellm", "config.yaml", "--output", ".env", cwd=tmp_path)
    assert (status, out) == (0, "")
    assert "to be mended" not in err
    settings = load(tmp_path / ".env")
    assert settings.model_aliases == {
        "gpt-4o": "lite-azure/gpt-4o-eu@6,openai/gpt-4o@4,anthropic/claude-sonnet-4-5",
        "claude": "anthropic/claude-sonnet-4-5",
        "one": "lite-hosted-vllm/qwen",
        "two": "lite-hosted-vllm-2/qwen",
    }
    assert settings.backend_configs["lite-azure"].base_url == "https://eu.openai.azure.com/openai/v1"
    assert settings.backend_configs["lite-hosted-vllm-2"].base_url == "http://192.0.2.8:8000/v1"
    assert settings.backend_configs["anthropic"].api_key == "sk-'lit$er al"
    assert (settings.retries, settings.answer_timeout_s) == (3, 30)
    assert settings.redis_url == "redis://:p%40ss@localhost:6379/0"
    assert settings.api_keys == ("sk-1234",)
    for told in ("reads from AZ", "bedrock", "wildcards", "fallbacks of none", "database_url"):
        assert told in err
        assert told in (tmp_path / ".env").read_text()
    assert "OPENAI_API_KEY" not in err  # the same name in both
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


async def test_it_overwrites_nothing_and_refuses_what_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / ".env").write_text("KEEP=me\n")
    status, _, err = await sluice("import-litellm", "config.yaml", "--output", ".env", cwd=tmp_path)
    assert (status, "exists already" in err, (tmp_path / ".env").read_text()) == (1, True, "KEEP=me\n")
    for text in ("services: []\n", "- a\n", "a: [\n", "model_list: [7]\n"):
        (tmp_path / "config.yaml").write_text(text)
        status, out, err = await sluice("import-litellm", "config.yaml", cwd=tmp_path)
        assert (status, out) == (1, "")
        assert "config.yaml" in err


@pytest.mark.parametrize(
    ("model", "more", "target"),
    [
        ("gpt-4o", {}, "openai/gpt-4o"),
        ("claude-3", {}, "anthropic/claude-3"),
        ("gemini-2.5-pro", {}, "gemini/gemini-2.5-pro"),
        ("openrouter/qwen/qwen-2.5-72b-instruct", {}, "openrouter/qwen/qwen-2.5-72b-instruct"),
        ("cloudflare/@cf/meta/llama-3.1-8b", {}, "workers-ai/@cf/meta/llama-3.1-8b"),
        ("ollama_chat/llama3", {}, "ollama/llama3"),
        ("openai/local", {"api_base": "http://127.0.0.1:1/v1"}, "lite-openai/local"),
        ("mistral/small", {}, "lite-mistral/small"),
        ("m", {"custom_llm_provider": "groq"}, "groq/m"),
    ],
)
def test_a_deployment_is_a_target(model: str, more: dict[str, str], target: str) -> None:
    assert _aliases({"model_list": [{"model_name": "x", "litellm_params": {"model": model, **more}}]}) == {"x": target}


def test_an_unknown_provider_without_an_address_is_left_out_and_told() -> None:
    found = convert({"model_list": [{"model_name": "x", "litellm_params": {"model": "nobody/m"}}]})
    assert "MODEL_ALIASES" not in found.settings
    assert "no address of nobody" in found.notes[0]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0", exclude_categories=["Cc", "Zl", "Zp"])))
def test_keys_survive_the_file_whatever_stands_in_them(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    document = {"model_list": [{"model_name": "x", "litellm_params": {"model": "groq/m", "api_key": key}}]}
    env = tmp_path_factory.mktemp("env") / ".env"
    env.write_text(convert(yaml.safe_load(yaml.safe_dump(document))).text(), encoding="utf-8")
    expected = "" if key.startswith("os.environ/") else key
    assert load(env).backend_configs["groq"].api_key == expected
