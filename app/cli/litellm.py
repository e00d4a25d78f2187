"""From LiteLLM's ``config.yaml`` to Sluice's settings. Pure: a document in, lines and notes out.

What LiteLLM's keys mean: https://docs.litellm.ai/docs/proxy/config_settings
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

_BUILT_IN = {
    "openai": "openai",
    "groq": "groq",
    "openrouter": "openrouter",
    "gemini": "gemini",
    "anthropic": "anthropic",
    "cloudflare": "workers-ai",
    "ollama": "ollama",
    "ollama_chat": "ollama",
}
"""LiteLLM's providers that are built-in backends of Sluice."""
_COMPATIBLE = {
    "mistral": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "together_ai": "https://api.together.xyz/v1",
    "fireworks_ai": "https://api.fireworks.ai/inference/v1",
    "xai": "https://api.x.ai/v1",
    "perplexity": "https://api.perplexity.ai",
    "cerebras": "https://api.cerebras.ai/v1",
    "deepinfra": "https://api.deepinfra.com/v1/openai",
    "nvidia_nim": "https://integrate.api.nvidia.com/v1",
    "sambanova": "https://api.sambanova.ai/v1",
}
"""Providers with an OpenAI-compatible address of their own."""
_OTHER_WIRES = {"bedrock", "vertex_ai", "sagemaker", "watsonx", "cohere", "replicate", "palm"}
"""Providers that speak no wire that Sluice speaks."""
_FAMILIES = (("claude", "anthropic"), ("gemini", "gemini"), ("", "openai"))
"""Whose a model is that stands without a provider, by how its name begins."""
_SECRET = re.compile(r"os\.environ/(\w+)")


@dataclass
class Converted:
    """The settings that a LiteLLM configuration amounts to.

    Attributes:
        settings: variable -> value, in order.
        notes: what could not be taken over, or is to be looked at, a sentence each.
    """

    settings: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the text of a ``.env`` file."""
        lines = ["# Converted from LiteLLM's config.yaml.", *(f"# NOTE {note}" for note in self.notes)]
        return "\n".join([*lines, *(f"{name}={_quoted(value)}" for name, value in self.settings.items())]) + "\n"


def convert(document: Any) -> Converted:
    """Convert a parsed ``config.yaml``.

    Raises:
        ValueError: it is no LiteLLM configuration.
    """
    if not isinstance(document, dict) or not isinstance(document.get("model_list"), list):
        raise ValueError(  # noqa: TRY004 - the value of a file, not the type of an argument
            "there is no model_list in it: this is not a LiteLLM config.yaml"
        )
    found = Converted()
    chains = _chains(document["model_list"], found)
    _fall_back(chains, _section(document, "router_settings"), found)
    _fall_back(chains, _section(document, "litellm_settings"), found)
    if chains:
        aliases = {name: ",".join(chain) for name, chain in chains.items()}
        found.settings["MODEL_ALIASES"] = orjson.dumps(aliases).decode()
    _limits(document, found)
    _general(_section(document, "general_settings"), found)
    return found


def _section(document: dict[str, Any], name: str) -> dict[str, Any]:
    section = document.get(name)
    return section if isinstance(section, dict) else {}


# -- models ------------------------------------------------------------------------------------------------------------


def _chains(models: list[Any], found: Converted) -> dict[str, list[str]]:
    """Return the chain of every model name; several deployments of one name share its calls by weight."""
    chains: dict[str, list[tuple[str, int]]] = {}
    for each in models:
        name, told = each.get("model_name"), each.get("litellm_params") or {}
        if "*" in str(name) or "*" in str(told.get("model")):
            found.notes.append(f"{name}: wildcards need no entry: callers may write backend/model-id for any backend")
            continue
        target = _target(str(told.get("model", "")), told, found)
        if target is not None:
            weight = int(told.get("weight") or told.get("rpm") or told.get("tpm") or 1)
            chains.setdefault(str(name), []).append((target, max(weight, 1)))
    return {name: _weighted(chain) for name, chain in chains.items()}


def _weighted(chain: list[tuple[str, int]]) -> list[str]:
    return [target for target, _ in chain] if len(chain) == 1 else [f"{target}@{weight}" for target, weight in chain]


def _target(model: str, told: dict[str, Any], found: Converted) -> str | None:
    """Return a deployment as a target, and see to it that its backend is set up; None where that cannot be."""
    provider, name = _provider(model, told)
    if provider in _OTHER_WIRES:
        found.notes.append(f"{model}: Sluice does not speak {provider}'s wire; left out")
        return None
    base = told.get("api_base") or _COMPATIBLE.get(provider)
    if provider == "azure":
        base = f"{str(base or 'https://YOUR-RESOURCE.openai.azure.com').rstrip('/')}/openai/v1"
    elif not told.get("api_base") and provider in _BUILT_IN:
        backend = _BUILT_IN[provider]
        _key(f"{backend.upper().replace('-', '_')}_API_KEY", told, found)
        return f"{backend}/{name}"
    if not base:
        found.notes.append(f"{model}: no address of {provider} is known; set BACKENDS__<NAME>__BASE_URL; left out")
        return None
    backend = _own_backend(provider, str(base), found)
    _key(f"{_prefix(backend)}API_KEY", told, found)
    return f"{backend}/{name}"


def _provider(model: str, told: dict[str, Any]) -> tuple[str, str]:
    """Split ``provider/model``; a name without a provider belongs to the family that it begins like."""
    provider, slash, name = model.partition("/")
    known = {*_BUILT_IN, *_COMPATIBLE, *_OTHER_WIRES, "azure"}
    if slash and (provider in known or told.get("api_base") or told.get("custom_llm_provider")):
        return provider, name
    if told.get("custom_llm_provider"):
        return str(told["custom_llm_provider"]), model
    return (provider, name) if slash else (next(owner for start, owner in _FAMILIES if model.startswith(start)), model)


def _own_backend(provider: str, base: str, found: Converted) -> str:
    """Return the name of the backend at an address, made where it is new."""
    stem = re.sub(r"[^a-z0-9]+", "-", provider.lower()).strip("-") or "own"
    for number in range(1, 1000):
        name = f"lite-{stem}" if number == 1 else f"lite-{stem}-{number}"
        variable = f"{_prefix(name)}BASE_URL"
        if found.settings.setdefault(variable, base) == base:
            return name
    raise ValueError("more than a thousand addresses of one provider")


def _prefix(backend: str) -> str:
    return f"BACKENDS__{backend.upper().replace('-', '_')}__"


def _key(variable: str, told: dict[str, Any], found: Converted) -> None:
    """Take over a key, or say where LiteLLM had it from."""
    key = told.get("api_key")
    if not isinstance(key, str):
        return
    secret = _SECRET.fullmatch(key)
    if secret is None:
        found.settings.setdefault(variable, key)
    elif variable not in found.settings and secret.group(1) != variable:
        note = f"{variable}: give it the value that LiteLLM reads from {secret.group(1)}"
        if note not in found.notes:
            found.notes.append(note)


# -- the rest ----------------------------------------------------------------------------------------------------------


def _fall_back(chains: dict[str, list[str]], section: dict[str, Any], found: Converted) -> None:
    """Append to each chain what it falls back to."""
    own = {name: list(chain) for name, chain in chains.items()}
    for kind in ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks"):
        for entry in section.get(kind) or ():
            for name, others in entry.items():
                if name not in chains:
                    found.notes.append(f"{kind} of {name}: there is no such model")
                    continue
                more = [_bare(target) for other in others for target in own.get(other, [])]
                chains[name] += [each for each in more if each not in map(_bare, chains[name])]
    if section.get("default_fallbacks"):
        found.notes.append("default_fallbacks: put those targets at the end of each chain of MODEL_ALIASES")


def _bare(target: str) -> str:
    return re.sub(r"@\d+$", "", target)


def _limits(document: dict[str, Any], found: Converted) -> None:
    router, lite = _section(document, "router_settings"), _section(document, "litellm_settings")
    taken = {
        "RETRIES": router.get("num_retries", lite.get("num_retries")),
        "ANSWER_TIMEOUT_S": router.get("timeout", lite.get("request_timeout")),
        "FIRST_CONTENT_TIMEOUT_S": router.get("stream_timeout"),
    }
    found.settings |= {name: str(value) for name, value in taken.items() if value is not None}
    if router.get("redis_host"):
        found.settings["REDIS_URL"] = _redis_url(router)
    if lite.get("cache"):
        found.settings["CACHE"] = "all"
    if lite.get("callbacks") or lite.get("success_callback"):
        found.notes.append("callbacks: /metrics needs no setting; traces go to OTEL_EXPORTER_OTLP_ENDPOINT")
    if router.get("routing_strategy") not in {None, "simple-shuffle"}:
        found.notes.append(f"routing_strategy {router['routing_strategy']}: chains go by order and by @weight")


def _redis_url(router: dict[str, Any]) -> str:
    password = router.get("redis_password")
    login = f":{quote(str(password), safe='')}@" if password and not _SECRET.fullmatch(str(password)) else ""
    return f"redis://{login}{router['redis_host']}:{router.get('redis_port', 6379)}/0"


def _general(general: dict[str, Any], found: Converted) -> None:
    master = general.get("master_key")
    if isinstance(master, str):
        secret = _SECRET.fullmatch(master)
        if secret is None:
            found.settings |= {"API_KEYS": master, "ADMIN_KEY": master}
        else:
            found.notes.append(f"API_KEYS and ADMIN_KEY: give them the value that LiteLLM reads from {secret.group(1)}")
    url = general.get("database_url")
    if isinstance(url, str):
        found.notes.append("database_url: LiteLLM's tables are not taken over; give DATABASE_URL a database of its own")


def _quoted(value: str) -> str:
    """Quote a value that a ``.env`` file would read otherwise."""
    if re.fullmatch(r"[\w./:@,+-]*", value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
