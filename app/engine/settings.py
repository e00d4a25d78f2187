"""The engine's settings: read once from the command line and the environment, then frozen."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_GB = 1 << 30
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names it."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Everything that can be chosen about an engine.

    Attributes:
        uds: path of the Unix socket, or None to listen on ``host`` and ``port``.
        key: the bearer key that callers must send; required off loopback.
        models: the allow-list: hub ids and absolute paths.
        allow_any: whether a caller's string may name any model, and so start a download.
        preload: models loaded at start, in this order.
        pin: models that are never unloaded by time or for room.
        embedding_models: models that may answer ``/v1/embeddings`` though nothing in their folder says so.
        ttl_s: idle seconds after which a model is unloaded; 0 keeps it.
        memory_bytes: the budget for weights, KV caches and prefixes; 0 means 70 % of what the machine has.
        patience_s: how long a request waits for room before the models in use stop taking new ones.
        queue: requests that may wait or run at once; one more gets 503.
        batch: sequences decoded together.
        prefill_batch: prompts read together; more than one or two delays every first token.
        prefill_step: prompt tokens read between two decode steps; 0 chooses by device.
        max_tokens: the answer's limit where the caller gave none.
        context: upper limit of a model's context in tokens; 0 takes the model's own.
        prefix_bytes: RAM for kept prefixes (KV caches of earlier prompts); 0 turns them off.
        prefix_dir: where prefixes that fall out of RAM are kept, or empty.
        prefix_disk_bytes: how much of them.
        draft: a small model that drafts for the others (speculative decoding; requests then run one by one), or empty.
        draft_tokens: tokens drafted at a time.
        hf_token: the Hugging Face token for gated models.
        offline: no outgoing connection at all.
        keepalive_s: silence after which a stream gets a comment line.
        stall_s: a step that takes longer makes ``/health`` say ``stalled``.
        stall_exit_s: a step that takes longer ends the process with exit code 75; 0 never does.
        exit_on_eof: end when standard input closes, so that the engine never outlives its supervisor.
        openblas: path or name of the OpenBLAS library to use on a Linux CPU; empty looks for one, ``off`` uses none.
    """

    uds: str | None = None
    host: str = "127.0.0.1"
    port: int = 9000
    key: str = ""
    models: tuple[str, ...] = ()
    allow_any: bool = False
    preload: tuple[str, ...] = ()
    pin: tuple[str, ...] = ()
    embedding_models: tuple[str, ...] = ()
    ttl_s: float = 1800.0
    memory_bytes: int = 0
    patience_s: float = 10.0
    queue: int = 256
    batch: int = 32
    prefill_batch: int = 8
    prefill_step: int = 0
    max_tokens: int = 4096
    context: int = 0
    prefix_bytes: int = _GB
    prefix_dir: str = ""
    prefix_disk_bytes: int = 4 * _GB
    draft: str = ""
    draft_tokens: int = 3
    hf_token: str = ""
    offline: bool = False
    keepalive_s: float = 5.0
    stall_s: float = 120.0
    stall_exit_s: float = 600.0
    exit_on_eof: bool = False
    openblas: str = ""

    @property
    def allowed(self) -> tuple[str, ...]:
        """The allow-list with everything that the settings themselves name, in order and once each."""
        named = (*self.models, *self.preload, *self.pin, *self.embedding_models)
        return tuple(dict.fromkeys(named))


class _Option(NamedTuple):
    """One setting: its field, its variable, how its text is read, and what it is."""

    field: str
    env: tuple[str, ...]
    read: Callable[[str], Any]
    help: str


def _boolean(text: str) -> bool:
    low = text.strip().lower()
    if low in {"1", "true", "yes", "on"}:
        return True
    if low in {"", "0", "false", "no", "off"}:
        return False
    raise ValueError("say true or false")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _gigabytes(text: str) -> int:
    return int(_positive(text) * _GB)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError("must be 0 or more")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError("must be 0 or more")
    return value


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError("must be 1 or more")
    return value


_OPTIONS = (
    _Option("uds", (), str, "listen on this Unix socket instead of host and port"),
    _Option("host", (), str, "address to listen on; off loopback ENGINE_KEY is required"),
    _Option("port", (), _count, "port to listen on"),
    _Option("key", ("ENGINE_KEY",), str, "bearer key that callers must send"),
    _Option("models", ("MLX_MODELS",), _names, "allow-list of models: hub ids and absolute paths, comma-separated"),
    _Option("allow_any", ("MLX_ALLOW_ANY",), _boolean, "let callers name any model, and so start downloads"),
    _Option("preload", ("MLX_PRELOAD",), _names, "models to load at start"),
    _Option("pin", ("MLX_PIN",), _names, "models that stay in memory"),
    _Option("embedding_models", ("MLX_EMBEDDING_MODELS",), _names, "models that may answer /v1/embeddings"),
    _Option("ttl_s", ("MLX_TTL_S",), _positive, "idle seconds before a model is unloaded; 0 never"),
    _Option("memory_bytes", ("MLX_MEMORY_GB",), _gigabytes, "memory budget in GiB; 0 means 70 %% of the machine's"),
    _Option("patience_s", ("MLX_PATIENCE_S",), _positive, "longest wait for room before busy models stop taking more"),
    _Option("queue", ("MLX_QUEUE",), _at_least_one, "requests that may wait or run at once"),
    _Option("batch", ("MLX_BATCH",), _at_least_one, "sequences decoded together"),
    _Option("prefill_batch", ("MLX_PREFILL_BATCH",), _at_least_one, "prompts read together"),
    _Option("prefill_step", ("MLX_PREFILL_STEP",), _count, "prompt tokens read between two decode steps; 0 chooses"),
    _Option("max_tokens", ("MLX_MAX_TOKENS",), _at_least_one, "answer limit where the caller gives none"),
    _Option("context", ("MLX_CONTEXT",), _count, "upper limit of the context in tokens; 0 is the model's own"),
    _Option("prefix_bytes", ("MLX_PREFIX_GB",), _gigabytes, "RAM in GiB for kept prefixes; 0 turns them off"),
    _Option("prefix_dir", ("MLX_PREFIX_DIR",), str, "folder for prefixes that fall out of RAM"),
    _Option("prefix_disk_bytes", ("MLX_PREFIX_DISK_GB",), _gigabytes, "how many GiB of them"),
    _Option("draft", ("MLX_DRAFT_MODEL",), str, "small model that drafts for the others"),
    _Option("draft_tokens", ("MLX_DRAFT_TOKENS",), _at_least_one, "tokens drafted at a time"),
    _Option("hf_token", ("HF_TOKEN",), str, "Hugging Face token for gated models"),
    _Option("offline", ("LOCAL_ONLY", "HF_HUB_OFFLINE"), _boolean, "make no outgoing connection"),
    _Option("keepalive_s", ("MLX_KEEPALIVE_S",), _positive, "silence before a stream gets a comment line"),
    _Option("stall_s", ("MLX_STALL_S",), _positive, "a longer step makes /health say stalled"),
    _Option("stall_exit_s", ("MLX_STALL_EXIT_S",), _positive, "a longer step ends the process; 0 never"),
    _Option("exit_on_eof", (), _boolean, "end when standard input closes"),
    _Option(
        "openblas", ("MLX_OPENBLAS",), str, "OpenBLAS library for a Linux CPU; empty looks for one, off does without"
    ),
)


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> EngineSettings:
    """Read the command line over the environment over the defaults.

    Raises:
        SettingsError: a value is wrong, or the engine would listen off loopback without a key.
    """
    given = vars(_parser().parse_args(argv))
    values: dict[str, Any] = {}
    for option in _OPTIONS:
        found = _text(option, given, environ)
        if found is not None:
            values[option.field] = _read(option, *found)
    settings = EngineSettings(**values)
    _check(settings)
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.engine", description=__doc__)
    for option in _OPTIONS:
        flag = _flag(option)
        env = f" [{option.env[0]}]" if option.env else ""
        if option.read is _boolean:
            parser.add_argument(flag, dest=option.field, nargs="?", const="true", help=option.help + env)
        else:
            parser.add_argument(flag, dest=option.field, help=option.help + env)
    return parser


def _flag(option: _Option) -> str:
    return "--" + option.field.replace("_bytes", "-gb").replace("_", "-")


def _text(option: _Option, given: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return (where it was said, what) or None; of two switches in the environment one true is enough."""
    if given[option.field] is not None:
        return _flag(option), given[option.field]
    said = [(name, environ[name]) for name in option.env if environ.get(name, "").strip()]
    if not said:
        return None
    if option.read is _boolean:
        return next((pair for pair in said if _read(option, *pair)), said[0])
    return said[0]


def _read(option: _Option, where: str, text: str) -> Any:
    try:
        return option.read(text)
    except ValueError as error:
        raise SettingsError(f"{where}={text!r}: {error}") from None


def _check(settings: EngineSettings) -> None:
    if settings.uds is None and settings.host not in _LOOPBACK and not settings.key:
        raise SettingsError(
            f"--host {settings.host} is reachable from other machines: set ENGINE_KEY, which callers then send as "
            "'Authorization: Bearer <key>', or listen on 127.0.0.1 or a Unix socket"
        )


def describe(settings: EngineSettings) -> dict[str, Any]:
    """Return the settings as plain values, the secrets only as whether they are set."""
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return {**values, "key": bool(settings.key), "hf_token": bool(settings.hf_token)}
