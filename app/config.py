"""What is known of a backend before it is called."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one backend may take, in seconds; the names are those of Settings."""

    connect_s: float = 5.0
    first_content_s: float = 10.0
    answer_s: float = 120.0
    idle_s: float = 15.0
    deadline_s: float = 600.0


@dataclass(frozen=True, slots=True)
class OllamaOptions:
    """How an Ollama is spoken to.

    Attributes:
        native: whether over its own ``/api/chat``, which takes a context size, instead of its OpenAI endpoint.
        num_ctx: tokens of context that native calls ask for.
        keep_alive: how long it keeps a model loaded after its last use, in Ollama's notation, e.g. ``5m``.
        load_s: how long it may take to load one.
    """

    native: bool = False
    num_ctx: int = 8192
    keep_alive: str = "5m"
    load_s: float = 120.0


@dataclass(frozen=True, slots=True)
class DevboxOptions:
    """A Runloop devbox that answers once it is awake.

    Attributes:
        api_url: of Runloop's control API; api_key: for it.
        devbox_id: the box to use; where it is empty, one is found or created from ``blueprint_id``.
        tunnel: whether Ollama is reached through a tunnel; else by executed commands.
        tunnel_url: the tunnel's address with the placeholders ``{port}`` and ``{key}``.
        wait: whether a call waits for a sleeping box although another candidate is left.
        wake_timeout_s: how long a call waits, and how long a box may take to start.
        idle_suspend_s: a box created here is suspended by Runloop after so many seconds without use.
    """

    api_url: str
    api_key: str = field(repr=False)
    devbox_id: str = ""
    blueprint_id: str = ""
    tunnel: bool = True
    tunnel_url: str = ""
    wait: bool = True
    wake_timeout_s: float = 120.0
    idle_suspend_s: int = 600


@dataclass(frozen=True, slots=True)
class AnthropicOptions:
    """How Anthropic's own wire is spoken.

    Attributes:
        version: the ``anthropic-version``; from 2026-10-21 on it takes no sampling parameters.
        max_tokens: the longest answer where the caller names no limit, which this wire asks for.
    """

    version: str = "2026-10-21"
    max_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """Everything there is to know of one backend before it is called.

    Attributes:
        dialect: which quirks its wire has; a key of the catalogue in app.backend.catalog.
        local: whether it is on this machine: no remote connection, no bill.
        problem: the one thing to set before it can be used, or None.
        prefill: whether its models continue an assistant message; None where nobody said.
        context_window: tokens, or None where it depends on the model.
        slots: calls at once per target; line: calls that may wait for a slot.
        ollama: where it is an Ollama, how it is spoken to.
        devbox: where it is a devbox that has to be woken, which.
        pulls: for a devbox: models that some role names; others are used if they are there, and never downloaded.
        wires: those beside the chat's that the operator says it has, see app.backend.catalog.
        anthropic: where it speaks Anthropic's wire, how.
        engines: for local models: base URLs of engines elsewhere; empty means one on this host.
        models: for local models: those that may be loaded; None allows all.
        environment: for local models: what the engine's process is told.
    """

    name: str
    base_url: str
    api_key: str = field(repr=False, default="")
    dialect: str = "openai"
    local: bool = False
    problem: str | None = None
    limits: Limits = Limits()
    prefill: bool | None = None
    context_window: int | None = None
    slots: int = 256
    line: int = 1024
    ollama: OllamaOptions | None = None
    devbox: DevboxOptions | None = None
    pulls: frozenset[str] = frozenset()
    wires: frozenset[str] = frozenset()
    anthropic: AnthropicOptions | None = None
    engines: tuple[str, ...] = ()
    models: frozenset[str] | None = None
    environment: tuple[tuple[str, str], ...] = field(repr=False, default=())
