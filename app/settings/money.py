"""What calls cost, what they save, who may spend, and what is answered from memory."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, field_validator

from app.call import Target

_DATABASES = ("postgresql://", "postgres://", "postgresql+asyncpg://", "sqlite:///", "sqlite+aiosqlite:///")


class MoneySettings(BaseModel):
    """This group's settings; see Settings."""

    data_dir: str = Field("data", description="folder of what is kept: the ledger, and what waits to be written to it")
    database_url: str = Field(
        "", description="postgresql://user:password@host/name; default an SQLite file in DATA_DIR; off keeps nothing"
    )
    ledger_spill_mb: float = Field(
        256, gt=0, allow_inf_nan=False, description="disk for rows that wait while the database is away, per worker"
    )
    prices_file: str = Field("", description="YAML file of rates that replace the bundled ones; followed live")
    local_usd_per_hour: float = Field(
        0, ge=0, allow_inf_nan=False, description="what an hour of this machine's work on calls costs in USD"
    )
    local_watts: float = Field(
        0, ge=0, allow_inf_nan=False, description="watts that it draws more when it works, LOCAL_USD_PER_KWH each"
    )
    local_usd_per_kwh: float = Field(0, ge=0, allow_inf_nan=False, description="price of electricity in USD")
    baseline_model: str = Field(
        "", description="target that savings are compared with; default the first of MODEL_LARGE"
    )
    log_content: bool = Field(default=False, description="true: prompts and answers are kept in the ledger")

    keys_required: bool = Field(
        default=False, description="true asks callers for a key even while none exists; see sluice keys"
    )
    cache: Literal["off", "deterministic", "all"] = Field(
        "deterministic", description="which calls are answered from memory: off, temperature=0 and embeddings, or all"
    )
    cache_mb: float = Field(64, ge=0, allow_inf_nan=False, description="memory for kept answers, per worker")
    cache_ttl_s: float = Field(3600, gt=0, allow_inf_nan=False, description="seconds that an answer is kept")

    @field_validator("cache", mode="before")
    @classmethod
    def _lower_cache(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("baseline_model")
    @classmethod
    def _target(cls, value: str) -> str:
        return str(Target.parse(value)) if value else value

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        if value and value != "off" and not value.startswith(_DATABASES):
            raise ValueError("must be postgresql://user:password@host/name, sqlite:////path/to/file, or off")
        return value
