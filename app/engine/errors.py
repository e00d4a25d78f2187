"""What the engine says when it cannot: every error names the cause and the remedy."""

from __future__ import annotations

from app.errors import CallerError, SluiceError


class EngineError(SluiceError):
    """The engine failed; another backend may do better."""

    fault = "backend_engine"
    code = "engine_error"


class ModelError(EngineError):
    """A model cannot be had: not found, gated, no network, corrupt, too large ...

    ``code`` is from the closed set of ``hub`` and ``faults``, e.g. ``model_gated``.
    """

    status = 503
    code = "model_unavailable"


class BusyError(EngineError):
    """The queue is full; try again after ``retry_after_s`` seconds."""

    status = 503
    type = "overloaded_error"
    code = "queue_full"


class CancelledLoadError(EngineError):
    """The work was cancelled: the model was unloaded, or the engine is going down."""

    status = 503
    code = "cancelled"


def unsupported(param: str, why: str) -> CallerError:
    """Return the 400 for a parameter that the engine does not know or cannot honour."""
    return CallerError(f"{param}: {why}", param=param, code="unsupported_parameter")


def invalid(param: str, why: str) -> CallerError:
    """Return the 400 for a parameter with a wrong value."""
    return CallerError(f"{param}: {why}", param=param, code="invalid_value")
