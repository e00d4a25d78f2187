"""What follows from the settings: each backend as one frozen value, and the one thing that keeps it from use."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app.config import AnthropicOptions, BackendConfig, DevboxOptions, Limits, OllamaOptions
from app.settings import hardware

if TYPE_CHECKING:
    from pydantic import SecretStr

    from app.settings.fields import BackendOptions, Settings

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
BUILT_IN = {  # name: dialect
    "groq": "groq",
    "openrouter": "openrouter",
    "openai": "openai",
    "gemini": "gemini",
    "anthropic": "anthropic",
    "workers-ai": "workers-ai",
    "ollama": "ollama",
    "mlx": "mlx",
    "runloop": "ollama",
}
_KEY_VARIABLE = {
    "groq": "GROQ_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "openai": "OPENAI_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "workers-ai": "CLOUDFLARE_API_TOKEN",
}
LOCAL_FIRST_CONTENT_S = 60.0
"""For local models where nobody set FIRST_CONTENT_TIMEOUT_S: 2,000 tokens of a prompt can take 20 s on two cores."""
_ENGINE_URL = "http://engine/v1"
"""The engine of this host is reached by its Unix socket, whatever the address says."""


def backend(settings: Settings, name: str, options: BackendOptions) -> BackendConfig:
    """Unite what the flat settings (``GROQ_…``) and ``BACKENDS__<NAME>__…`` say of one backend; the latter wins."""
    prefix = name.replace("-", "_")
    if name == "mlx":
        return _mlx(settings, options)
    box = _devbox(settings) if name == "runloop" and not options.base_url else None
    base_url = (options.base_url or _flat_url(settings, name, prefix)).rstrip("/")
    api_key = _secret(options.api_key) or _secret(getattr(settings, f"{prefix}_api_key", None))
    local = box is None and _is_local(base_url)
    dialect = options.dialect or BUILT_IN.get(name, "compatible")
    ollama = _ollama(settings) if dialect == "ollama" else None
    moved = bool(options.base_url) or f"{prefix}_base_url" in settings.model_fields_set
    return BackendConfig(
        name=name,
        base_url=base_url,
        api_key=api_key,
        dialect=dialect,
        local=local,
        problem=_switched_off(settings, name, options, local=local)
        or (_missing_box(box) if box is not None else _missing(name, base_url, needs_key=not (api_key or moved))),
        limits=_limits(settings.limits, options),
        prefill=options.prefill,
        context_window=options.context_window or (ollama.num_ctx if ollama is not None and ollama.native else None),
        slots=options.slots or settings.slots,
        line=settings.line if options.line is None else options.line,
        ollama=ollama,
        devbox=box,
        pulls=_named(settings, name) if box is not None else frozenset(),
        wires=frozenset(options.wires),
        anthropic=AnthropicOptions(settings.anthropic_version, settings.anthropic_max_tokens)
        if dialect == "anthropic"
        else None,
    )


def _ollama(settings: Settings) -> OllamaOptions:
    return OllamaOptions(
        native=settings.ollama_native,
        num_ctx=settings.ollama_num_ctx,
        keep_alive=settings.ollama_keep_alive,
        load_s=settings.ollama_load_timeout_s,
    )


def _devbox(settings: Settings) -> DevboxOptions:
    return DevboxOptions(
        api_url=settings.runloop_base_url.rstrip("/"),
        api_key=_secret(settings.runloop_api_key),
        devbox_id=settings.runloop_devbox_id,
        blueprint_id=settings.qwen_ollama_blueprint_id,
        tunnel=settings.runloop_mode == "tunnel",
        tunnel_url=settings.runloop_tunnel_url.rstrip("/"),
        wait=settings.runloop_on_cold == "wait",
        wake_timeout_s=settings.runloop_wake_timeout_s,
        idle_suspend_s=settings.runloop_idle_suspend_s,
    )


def _named(settings: Settings, backend: str) -> frozenset[str]:
    """Return the models of a backend that some role or alias names."""
    chains = (*settings.chains.values(), *settings.alias_chains)
    return frozenset(choice.target.model for chain in chains for choice in chain if choice.target.backend == backend)


def _mlx(settings: Settings, options: BackendOptions) -> BackendConfig:
    """Describe the local models: an engine on this host, or engines elsewhere."""
    engines = tuple(url.rstrip("/") for url in settings.mlx_engines)
    local = all(_is_local(url) for url in engines)
    return BackendConfig(
        name="mlx",
        base_url=_ENGINE_URL,
        api_key=_secret(settings.engine_key),
        dialect="mlx",
        local=local,
        problem=_switched_off(settings, "mlx", options, local=local)
        or (None if engines else hardware.missing_engine()),
        limits=_limits(_patient(settings), options),
        prefill=True if options.prefill is None else options.prefill,
        context_window=options.context_window,
        slots=options.slots or settings.slots,
        line=settings.line if options.line is None else options.line,
        engines=engines,
        models=None if settings.mlx_allow_any else _allowed(settings),
        environment=_environment(settings),
    )


def _allowed(settings: Settings) -> frozenset[str]:
    """Return the local models that the operator named anywhere."""
    lists = (settings.mlx_models, settings.mlx_preload, settings.mlx_pin, settings.mlx_embedding_models)
    return _named(settings, "mlx").union(*lists)


def _environment(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return what the engine's process is told. What callers may load is judged here, so there it may load anything."""
    told = {
        "MLX_ALLOW_ANY": "true",
        "MLX_PRELOAD": ",".join(settings.mlx_preload),
        "MLX_PIN": ",".join(settings.mlx_pin),
        "MLX_EMBEDDING_MODELS": ",".join(settings.mlx_embedding_models),
        "MLX_TTL_S": f"{settings.mlx_ttl_s:g}",
        "MLX_MEMORY_GB": f"{settings.mlx_memory_gb:g}",
        "MLX_DRAFT_MODEL": settings.mlx_draft_model,
        "MLX_PREFIX_DIR": settings.mlx_prefix_dir,
        "MLX_OPENBLAS": settings.mlx_openblas,
        "MLX_KEEPALIVE_S": "1",  # its comments say that a call waits: then the limits of an answer do not run
        "HF_TOKEN": _secret(settings.hf_token),
        "LOCAL_ONLY": str(settings.local_only).lower(),
        "ENGINE_KEY": "",
    }
    return tuple((name, value) for name, value in told.items() if value or name == "ENGINE_KEY")


def _is_local(base_url: str) -> bool:
    return (urlsplit(base_url).hostname or "") in LOOPBACK


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value else ""


def _flat_url(settings: Settings, name: str, prefix: str) -> str:
    url: str = getattr(settings, f"{prefix}_base_url", "")
    if name == "workers-ai" and not url and settings.cloudflare_account_id:
        return f"https://api.cloudflare.com/client/v4/accounts/{settings.cloudflare_account_id}/ai/v1"
    return url


def _limits(default: Limits, options: BackendOptions) -> Limits:
    return Limits(
        options.connect_timeout_s or default.connect_s,
        options.first_content_timeout_s or default.first_content_s,
        options.answer_timeout_s or default.answer_s,
        options.idle_timeout_s or default.idle_s,
        options.deadline_s or default.deadline_s,
    )


def _patient(settings: Settings) -> Limits:
    """Return the limits of local models: a CPU reads a long prompt for longer than a cloud may stay silent."""
    if "first_content_timeout_s" in settings.model_fields_set:
        return settings.limits
    return replace(settings.limits, first_content_s=LOCAL_FIRST_CONTENT_S)


def _switched_off(settings: Settings, name: str, options: BackendOptions, *, local: bool) -> str | None:
    """Name the switch that keeps a backend out of use, or None."""
    prefix = name.replace("-", "_")
    if options.enabled is False:
        return f"BACKENDS__{prefix.upper()}__ENABLED is false"
    if not getattr(settings, f"{prefix}_enabled", True):
        return f"{prefix.upper()}_ENABLED is false"
    if settings.local_only and not local:
        return "LOCAL_ONLY is true and it is not on this machine"
    return None


def _missing_box(box: DevboxOptions) -> str | None:
    """Name the one thing to do before a devbox can be used, or None."""
    if not box.api_key:
        return "set RUNLOOP_API_KEY"
    if not (box.devbox_id or box.blueprint_id):
        return "set RUNLOOP_DEVBOX_ID or QWEN_OLLAMA_BLUEPRINT_ID"
    return None if _has_sdk() else "install the extra [runloop]: start with SLUICE_EXTRAS=local,runloop"


@cache
def _has_sdk() -> bool:
    return find_spec("runloop_api_client") is not None


def _missing(name: str, base_url: str, *, needs_key: bool) -> str | None:
    """Name the one variable to set before a backend can be used, or None."""
    if not base_url:
        prefix = name.replace("-", "_").upper()
        return "set CLOUDFLARE_ACCOUNT_ID" if name == "workers-ai" else f"set BACKENDS__{prefix}__BASE_URL"
    if needs_key and name in _KEY_VARIABLE:
        return f"set {_KEY_VARIABLE[name]}"
    return None
