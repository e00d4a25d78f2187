"""Settings: every setting there is, typed, described and frozen."""

from __future__ import annotations

import hashlib
import os
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from app.call import Choice, OnWeak, Target
from app.config import BackendConfig, Limits
from app.settings import derive, hardware
from app.settings.endpoints import EndpointsSettings
from app.settings.money import MoneySettings
from app.settings.operate import OperateSettings
from app.settings.parity import ParitySettings
from app.settings.tasks import TasksSettings
from app.settings.types import CommaList, JsonMap, Seconds, comma_list, json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

_NESTED = ("backends", "roles", "parity")


class ConfigError(Exception):
    """The configuration cannot be used; ``mistakes`` has one message each, with the variable's name."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


class BackendOptions(BaseModel):
    """What ``BACKENDS__<NAME>__<OPTION>`` may say of a backend, built-in or the operator's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str | None = Field(None, description="OpenAI-compatible base URL, up to and including /v1")
    api_key: SecretStr | None = Field(None, description="sent as a bearer token")
    enabled: bool | None = Field(None, description="false takes the backend out of use, live")
    prefill: bool | None = Field(None, description="whether its models continue an assistant message")
    context_window: int | None = Field(None, gt=0, description="tokens")
    dialect: (
        Literal["openai", "compatible", "groq", "openrouter", "gemini", "workers-ai", "ollama", "anthropic"] | None
    ) = Field(None, description="whose quirks its wire has")
    wires: Annotated[tuple[Literal["responses", "messages", "completions"], ...], BeforeValidator(comma_list)] = Field(
        (), description="wires that it has beside the chat's: callers on them get its own answers"
    )
    connect_timeout_s: Seconds | None = None
    first_content_timeout_s: Seconds | None = None
    answer_timeout_s: Seconds | None = None
    idle_timeout_s: Seconds | None = None
    deadline_s: Seconds | None = None
    slots: int | None = Field(None, ge=1, description="calls at once per target")
    line: int | None = Field(None, ge=0, description="calls that may wait for a slot")


class _NestedSource(PydanticBaseSettingsSource):
    """Collects ``BACKENDS__NAME__OPTION``, ``PARITY__ROLE__OPTION`` and ``ROLES__NAME`` as plain strings.

    pydantic-settings' own nesting decodes values of a dict as JSON where it can: a key made of digits would turn into
    a number.
    """

    def __init__(self, settings_cls: type[BaseSettings], raw: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._raw = raw

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        nested: dict[str, dict[str, Any]] = {}
        for name, value in self._raw.items():
            section, _, rest = name.lower().partition("__")
            if section in _NESTED and rest and value:
                self._put(nested.setdefault(section, {}), section, rest, value)
        return dict(nested)

    @staticmethod
    def _put(into: dict[str, Any], section: str, rest: str, value: str) -> None:
        name, _, option = rest.partition("__")
        name = name.replace("_", "-")
        if section == "roles":
            into[name] = value
        else:
            into.setdefault(name, {})[option] = value


class Settings(OperateSettings, ParitySettings, EndpointsSettings, TasksSettings, MoneySettings, BaseSettings):
    """Every setting there is. Frozen: a change builds a new one (see Live)."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, env_file_encoding="utf-8", populate_by_name=True
    )

    host: str = Field("127.0.0.1", description="address to listen on; anything but loopback needs API_KEYS")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    workers: int = Field(1, ge=1, le=64, description="processes that serve")
    api_keys: CommaList = Field((), description="comma list of keys that callers may use; empty asks for none")
    admin_key: SecretStr | None = Field(None, description="key of the admin endpoints; unset allows loopback only")
    allow_anonymous: bool = Field(default=False, description="true serves a network without API_KEYS")
    cors_origins: CommaList = Field(("*",), description="comma list of web origins that may call /v1")
    max_body_mb: float = Field(32, gt=0, allow_inf_nan=False, description="larger request bodies get a 413")
    max_answer_mb: float = Field(64, gt=0, allow_inf_nan=False, description="larger answers of a backend are refused")
    performance_in_body: bool = Field(default=False, description="true adds the performance object to every answer")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    log_format: Literal["text", "json"] = Field("text", description="text or json")
    shutdown_s: Seconds = Field(30, description="seconds that calls under way may take after SIGTERM")

    unknown_model: Literal["auto", "error"] = Field(
        "auto", description="what an unknown model name does: auto or error"
    )
    model_aliases: JsonMap = Field({}, description='JSON: client\'s model name -> role or chain, {"gpt-4o": "medium"}')
    local_only: bool = Field(default=False, description="true: no remote client is ever built")
    force_local_llm: bool | None = Field(None, description="true: local candidates only; false: none; unset: normal")

    tier_small_max: int = Field(4, ge=0, le=10, description="complexity up to this goes to the role small")
    tier_medium_max: int = Field(7, ge=0, le=10, description="up to this to medium, above it to large")
    on_weak: OnWeak = Field("polish", description="a weak answer of a role is polished, escalated or served")
    on_weak_by_role: JsonMap = Field({}, description='JSON: the same for single roles, {"small": "escalate"}')
    polish_streams: Literal["off", "buffer"] = Field(
        "off", description="off: streams are never held back; buffer: held back, checked and polished"
    )
    attribution_footer: bool = Field(default=False, description="true: a polished answer says who wrote it")
    fit_history: bool = Field(
        default=True, description="true: oldest turns are dropped where no window is large enough"
    )
    prompts_dir: str = Field("", description="directory of prompt files; default the one that comes with Sluice")

    model_small: str = Field("", description="role small: complexity 1-4; default a local model fit for the hardware")
    model_medium: str = Field("", description="role medium: complexity 5-7; default as for small")
    model_large: str = Field(
        "gemini/gemini-2.5-pro,openai/gpt-5.1,openrouter/google/gemini-2.5-pro",
        description="role large: complexity 8-10",
    )
    model_code: str = Field(
        "runloop/qwen2.5-coder,groq/llama-3.3-70b-versatile", description="role code: code-implementation asks"
    )
    model_polish: str = Field("groq/llama-3.3-70b-versatile", description="role polish: improves a weak draft")
    model_analysis: str = Field(
        "openrouter/qwen/qwen-2.5-72b-instruct", description="role analysis: the four analysis tasks"
    )
    model_fast: str = Field(
        "workers-ai/@cf/meta/llama-3.1-8b-instruct-fast",
        description="role fast",
        validation_alias=AliasChoices("model_fast", "ai_model_fast"),
    )
    model_accurate: str = Field(
        "workers-ai/@cf/meta/llama-3.3-70b-instruct-fp8-fast",
        description="role accurate",
        validation_alias=AliasChoices("model_accurate", "ai_model_accurate"),
    )
    model_judge: str = Field("", description="role judge: compares answers; default MODEL_LARGE")
    model_embedding: str = Field("", description="role embedding: serves /v1/embeddings")

    groq_api_key: SecretStr | None = Field(None, description="Groq key")
    groq_base_url: str = Field("https://api.groq.com/openai/v1", description="Groq address")
    groq_enabled: bool = Field(default=True, description="false takes Groq out of use, live")
    openrouter_api_key: SecretStr | None = Field(None, description="OpenRouter key")
    openrouter_base_url: str = Field("https://openrouter.ai/api/v1", description="OpenRouter address")
    openrouter_enabled: bool = Field(default=True, description="false takes OpenRouter out of use, live")
    openai_api_key: SecretStr | None = Field(None, description="OpenAI key")
    openai_base_url: str = Field("https://api.openai.com/v1", description="OpenAI address")
    openai_enabled: bool = Field(default=True, description="false takes OpenAI out of use, live")
    gemini_api_key: SecretStr | None = Field(None, description="Gemini key")
    gemini_base_url: str = Field(
        "https://generativelanguage.googleapis.com/v1beta/openai", description="Gemini's OpenAI-compatible address"
    )
    gemini_enabled: bool = Field(default=True, description="false takes Gemini out of use, live")
    anthropic_api_key: SecretStr | None = Field(None, description="Anthropic key")
    anthropic_base_url: str = Field("https://api.anthropic.com/v1", description="Anthropic address")
    anthropic_enabled: bool = Field(default=True, description="false takes Anthropic out of use, live")
    workers_ai_api_key: SecretStr | None = Field(
        None,
        description="Cloudflare token for Workers AI (also CLOUDFLARE_API_TOKEN)",
        validation_alias=AliasChoices("workers_ai_api_key", "cloudflare_api_token"),
    )
    cloudflare_account_id: str = Field("", description="Cloudflare account of Workers AI")
    workers_ai_base_url: str = Field("", description="Workers AI address; default made from CLOUDFLARE_ACCOUNT_ID")
    workers_ai_enabled: bool = Field(default=True, description="false takes Workers AI out of use, live")
    ollama_api_key: SecretStr | None = Field(None, description="Ollama key, where a proxy in front of it asks for one")
    ollama_base_url: str = Field("http://127.0.0.1:11434/v1", description="Ollama address")
    ollama_enabled: bool = Field(default=True, description="false takes Ollama out of use, live")

    ollama_native: bool = Field(
        default=False, description="true: Ollama's own /api/chat, with OLLAMA_NUM_CTX and its timings; also on Runloop"
    )
    ollama_num_ctx: int = Field(8192, ge=256, description="tokens of context that native calls ask for")
    ollama_keep_alive: str = Field(
        "5m",
        pattern=r"^(-1|\d+(\.\d+)?(ms|s|m|h)?)$",
        description="how long Ollama keeps an idle model loaded; -1 always",
    )

    ollama_load_timeout_s: Seconds = Field(120, description="seconds that Ollama may take to load a model")

    runloop_api_key: SecretStr | None = Field(None, description="Runloop key; needs the extra [runloop]")
    runloop_base_url: str = Field("https://api.runloop.ai", description="Runloop's control API")
    runloop_devbox_id: str = Field(
        "",
        description="devbox that runs Ollama; default: one is created from QWEN_OLLAMA_BLUEPRINT_ID",
        validation_alias=AliasChoices("runloop_devbox_id", "runloop_devox_id"),
    )
    qwen_ollama_blueprint_id: str = Field("", description="blueprint with Ollama that devboxes are created from")
    runloop_mode: Literal["tunnel", "execute"] = Field(
        "tunnel", description="tunnel, or execute: commands on the devbox where no tunnel can be had"
    )
    runloop_tunnel_url: str = Field(
        "https://{port}-{key}.tunnel.runloop.ai", description="where a tunnel answers; {port} and {key} are filled in"
    )
    runloop_on_cold: Literal["wait", "next"] = Field(
        "wait", description="a call on a sleeping devbox waits, or goes to the next candidate while it wakes"
    )
    runloop_wake_timeout_s: Seconds = Field(120, description="seconds that a call waits for a devbox to wake")
    runloop_idle_suspend_s: int = Field(
        600, ge=1, description="a devbox created by Sluice is suspended after so many idle seconds"
    )
    runloop_enabled: bool = Field(
        default=True,
        description="false takes Qwen on Runloop out of use, live (also QWEN_ENABLED)",
        validation_alias=AliasChoices("runloop_enabled", "qwen_enabled"),
    )

    mlx_enabled: bool = Field(default=True, description="false takes local models out of use, live")
    mlx_models: CommaList = Field((), description="further local models that callers may name: hub ids, absolute paths")
    mlx_allow_any: bool = Field(default=False, description="true: a caller's string may start a download")
    mlx_preload: CommaList = Field((), description="local models loaded when the engine starts")
    mlx_pin: CommaList = Field((), description="local models that are never unloaded")
    mlx_embedding_models: CommaList = Field((), description="local models that may serve /v1/embeddings")
    mlx_ttl_s: float = Field(1800, ge=0, description="idle seconds after which a local model is unloaded; 0 never")
    mlx_memory_gb: float = Field(0, ge=0, description="memory budget of the engine in GiB; 0 is 70 % of the machine's")
    mlx_draft_model: str = Field("", description="a small local model that drafts for the others")
    mlx_prefix_dir: str = Field("", description="folder for conversation prefixes that fall out of memory")
    mlx_openblas: str = Field("", description="OpenBLAS library for a Linux CPU; empty looks for one, off does without")
    mlx_engines: CommaList = Field((), description="engines elsewhere, http://mac1:9000,http://mac2:9000")
    engine_key: SecretStr | None = Field(None, description="key of engines elsewhere")
    hf_token: SecretStr | None = Field(None, description="Hugging Face token, for gated models")

    connect_timeout_s: Seconds = Field(5, description="seconds to connect to a backend")
    first_content_timeout_s: Seconds = Field(10, description="seconds to the first content of a stream")
    answer_timeout_s: Seconds = Field(120, description="seconds to a whole plain answer")
    idle_timeout_s: Seconds = Field(15, description="seconds between two events of a stream")
    deadline_s: Seconds = Field(600, description="seconds for a whole call, or the client's read timeout if shorter")
    retries: int = Field(2, ge=0, le=10, description="at most this many further tries at one target in one call")
    retry_after_limit_s: float = Field(
        5, ge=0, description="a longer Retry-After is not waited for: the next candidate"
    )
    slots: int = Field(256, ge=1, description="calls at once per target; more wait in line")
    line: int = Field(1024, ge=0, description="calls that may wait in line per target; more get a 503")

    redis_url: str = Field("", description="redis://host:6379/0: breakers are shared by all hosts")

    backends: Annotated[dict[str, BackendOptions], NoDecode, BeforeValidator(json_object)] = Field(
        {}, description="BACKENDS__<NAME>__<OPTION>: see BackendOptions"
    )
    roles: JsonMap = Field({}, description="ROLES__<NAME>: further roles")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over ``.env`` over defaults, nested names read by ``_NestedSource``."""
        file = getattr(dotenv_settings, "env_file", None)
        nested = (
            _NestedSource(settings_cls, os.environ),
            _NestedSource(settings_cls, read_env_file(Path(file)) if file else {}),
        )
        return init_settings, nested[0], env_settings, nested[1], dotenv_settings

    @field_validator(
        *("log_level", "log_format", "unknown_model", "on_weak", "polish_streams", "runloop_mode", "runloop_on_cold"),
        mode="before",
    )
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @cached_property
    def backend_configs(self) -> dict[str, BackendConfig]:
        """Every backend that is known, usable or not, by name."""
        names = [*derive.BUILT_IN, *(name for name in self.backends if name not in derive.BUILT_IN)]
        return {name: derive.backend(self, name, self.backends.get(name, BackendOptions())) for name in names}

    @cached_property
    def chains(self) -> dict[str, tuple[Choice, ...]]:
        """Every role's chain, by the role's name in lower case."""
        texts = {name.removeprefix("model_"): getattr(self, name) for name in ROLE_FIELDS}
        for name, target in zip(("small", "medium"), hardware.local_models(), strict=True):
            texts[name] = texts[name] or target
        texts["judge"] = texts["judge"] or self.model_large
        texts.update(self.roles)
        return {name: parse_chain(text) for name, text in texts.items() if text}

    @cached_property
    def alias_chains(self) -> tuple[tuple[Choice, ...], ...]:
        """The chains that stand in MODEL_ALIASES; an alias of a role adds none."""
        return tuple(parse_chain(meaning) for meaning in self.model_aliases.values() if "/" in meaning)

    @cached_property
    def tenants(self) -> dict[bytes, str]:
        """A tenant for the SHA-256 of each of API_KEYS, named so that it does not tell the key."""
        digests = [hashlib.sha256(key.encode()).digest() for key in self.api_keys]
        return {digest: f"key-{digest.hex()[:8]}" for digest in digests}

    @cached_property
    def baseline(self) -> Target | None:
        """The target that savings are compared with; None where neither BASELINE_MODEL nor MODEL_LARGE names one."""
        if self.baseline_model:
            return Target.parse(self.baseline_model)
        return next((choice.target for choice in self.chains.get("large", ())), None)

    @cached_property
    def limits(self) -> Limits:
        """The time limits that hold where a backend has none of its own."""
        return Limits(
            self.connect_timeout_s,
            self.first_content_timeout_s,
            self.answer_timeout_s,
            self.idle_timeout_s,
            self.deadline_s,
        )

    def with_roles(self, chains: Mapping[str, tuple[Choice, ...]]) -> Settings:
        """Return the same settings with other chains for some roles."""
        texts = {role: ",".join(map(str, chain)) for role, chain in chains.items()}
        built_in = {f"model_{role}" for role in texts if role not in self.roles} & set(ROLE_FIELDS)
        own = {role: text for role, text in texts.items() if f"model_{role}" not in built_in}
        changes = {name: texts[name.removeprefix("model_")] for name in built_in}
        fresh = self.model_copy(update={**changes, "roles": {**self.roles, **own}})
        for name in fresh.__dict__.keys() - type(self).model_fields.keys():
            del fresh.__dict__[name]  # what was worked out from the others
        return fresh

    def masked(self) -> dict[str, Any]:
        """Return every setting with secrets replaced by ``***``, as ``GET /admin/config`` shows it."""
        shown = self.model_dump(mode="json")
        shown["api_keys"] = ["***"] * len(self.api_keys)
        shown["backends"] = {name: _masked_urls(options) for name, options in shown["backends"].items()}
        return _masked_urls(shown)


ROLE_FIELDS = tuple(
    sorted(
        (
            name
            for name in Settings.model_fields
            if name.startswith("model_") and name not in {"model_aliases", "model_config"}
        ),
        key=lambda name: name not in Settings.__annotations__,  # those of chats first
    )
)


def mask_url(url: str) -> str:
    """Return an address without the credentials that may stand in it."""
    return re.sub(r"//[^/]*@", "//***@", url)


def _masked_urls(options: dict[str, Any]) -> dict[str, Any]:
    masked = {name: mask_url(value) if name.endswith("_url") and value else value for name, value in options.items()}
    return masked | {name: [mask_url(url) for url in options[name]] for name in ("mlx_engines",) if options.get(name)}


def parse_chain(text: str) -> tuple[Choice, ...]:
    """Read a comma list of targets, order = fallback.

    Raises:
        ValueError: one of them is not ``backend/model-id``.
    """
    return tuple(Choice.parse(part) for part in text.split(",") if part.strip())


def read_env_file(path: Path) -> dict[str, str]:
    """Read a ``.env`` file; a missing one is empty.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        return {key: value or "" for key, value in dotenv_values(path, interpolate=False).items()}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
