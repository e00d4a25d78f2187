"""Metrics of the local engine, from what it says of itself at each scrape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from prometheus_client import Gauge

from app.call import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry

_STATES = ("not_loaded", "downloading", "loading", "ready", "failed")
_PER_MODEL = {
    "loads": ("loads", "How often it was loaded."),
    "load_s": ("load_seconds", "Seconds that the last load took."),
    "batch": ("batch_size", "Sequences decoded together now."),
    "waiting": ("queue", "Requests that wait."),
    "prompt_tokens_per_s": ("prompt_tokens_per_second", "Prompt tokens read a second."),
    "decode_tokens_per_s": ("decode_tokens_per_second", "Tokens generated a second."),
}
_PREFIX = {
    "hits": ("prefix_hits", "Prompts that began with a kept prefix."),
    "hit_tokens": ("prefix_hit_tokens", "Prompt tokens that did not need reading."),
    "bytes": ("prefix_bytes", "Memory of kept prefixes."),
}


class EngineMetrics:
    """Gauges; several engines, or the same one seen by several workers, show their newest values.

    Args:
        registry: where they are kept.
        label: names a target; callers can name models where MLX_ALLOW_ANY lets them, so the names are not the engine's.
    """

    def __init__(self, registry: CollectorRegistry, label: Callable[[Target], str]) -> None:
        self._registry = registry
        self._label = label
        self._memory = self._gauge("memory_bytes", "Memory of the engine.", "kind")
        self._state = self._gauge("model_state", "1 for the state that a model is in.", "model", "state")
        self._restarts = self._gauge("restarts", "How often the engine has ended.", mode="sum")
        self._models = {key: self._gauge(*about, "model") for key, about in (_PER_MODEL | _PREFIX).items()}

    def _gauge(self, name: str, text: str, *labels: str, mode: Literal["mostrecent", "sum"] = "mostrecent") -> Gauge:
        return Gauge(f"sluice_engine_{name}", text, labels, registry=self._registry, multiprocess_mode=mode)

    def update(self, stats: Iterable[dict[str, Any]], restarts: int) -> None:
        """Show what the engines say."""
        self._restarts.set(restarts)
        for told in stats:
            for kind, value in told.get("memory", {}).items():
                self._memory.labels(kind.removesuffix("_bytes")).set(value)
            for model, about in told.get("models", {}).items():
                self._update_model(self._label(Target("mlx", model)), about)

    def _update_model(self, model: str, about: dict[str, Any]) -> None:
        for state in _STATES:
            self._state.labels(model, state).set(1 if about.get("state") == state else 0)
        values = {**about, **about.get("prefix", {})}
        for key, gauge in self._models.items():
            if isinstance(values.get(key), int | float):
                gauge.labels(model).set(values[key])
