"""What is said of a new key, on the command line or over HTTP, and how a key is shown."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from app.errors import CallerError

if TYPE_CHECKING:
    from app.ledger.key_store import StoredKey


def _named(text: str) -> str:
    if re.fullmatch(r"[\w.@:/ -]{1,128}", text) is None:
        raise ValueError("use 1 to 128 letters, digits, spaces and any of . @ : / _ -")
    return text


_Name = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_named)]
_Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
_Usd = Annotated[Decimal, Field(gt=0, le=1_000_000, decimal_places=12)]
_DAY_S = 86_400


class NewKey(BaseModel):
    """A key that is to be made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Name
    tenant: _Name | None = None
    models: tuple[Annotated[str, StringConstraints(min_length=1, max_length=512)], ...] = Field((), max_length=100)
    rpm: _Count | None = None
    tpm: _Count | None = None
    max_parallel: _Count | None = None
    budget_day_usd: _Usd | None = None
    budget_month_usd: _Usd | None = None
    expires_at: datetime | None = None
    expires_days: Annotated[float, Field(gt=0, le=36_500)] | None = None

    @model_validator(mode="after")
    def _one_end(self) -> NewKey:
        if self.expires_at is not None and self.expires_days is not None:
            raise ValueError("give expires_at or expires_days, not both")
        return self

    def row(self) -> dict[str, Any]:
        """Return the columns that follow from it."""
        return {
            "name": self.name,
            "tenant": self.tenant or self.name,
            "models": orjson.dumps(self.models).decode(),
            "rpm": self.rpm,
            "tpm": self.tpm,
            "max_parallel": self.max_parallel,
            "day_usd": self.budget_day_usd,
            "month_usd": self.budget_month_usd,
            "expires_ms": self._expires_ms(),
        }

    def _expires_ms(self) -> int | None:
        if self.expires_at is not None:
            aware = self.expires_at if self.expires_at.tzinfo else self.expires_at.replace(tzinfo=UTC)
            return int(aware.timestamp() * 1000)
        return None if self.expires_days is None else int((time.time() + self.expires_days * _DAY_S) * 1000)


def read_new_key(told: dict[str, Any]) -> NewKey:
    """Read what a key is to be.

    Raises:
        CallerError: 400, with the field that is wrong.
    """
    try:
        return NewKey(**told)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"]) or "body"
        message = first["msg"].removeprefix("Value error, ")
        raise CallerError(f"Invalid value: '{path}': {message}.", param=path, code="invalid_value") from error


def shown(key: StoredKey) -> dict[str, Any]:
    """Return a key as ``/admin/keys`` and ``keys list --json`` show it; times in ISO 8601, money in USD."""
    terms = key.terms
    return {
        "id": terms.id,
        "name": terms.name,
        "tenant": terms.tenant,
        "key": key.hint,
        "state": state_of(key),
        "models": list(terms.models),
        "rpm": terms.rpm,
        "tpm": terms.tpm,
        "max_parallel": terms.max_parallel,
        "budget_day_usd": _usd(terms.day_usd),
        "budget_month_usd": _usd(terms.month_usd),
        "spent_day_usd": _usd(key.spent_usd[0]),
        "spent_month_usd": _usd(key.spent_usd[1]),
        "created_at": iso(key.created_at),
        "expires_at": iso(terms.expires_at),
        "revoked_at": iso(key.revoked_at),
    }


def state_of(key: StoredKey) -> str:
    """Return ``active``, ``revoked`` or ``expired``."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.terms.expires_at is not None and key.terms.expires_at <= time.time() else "active"


def iso(at: float | None) -> str | None:
    """Return a moment, in seconds since 1970, as people and programs read it."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _usd(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)
