"""What calls cost, what they save, who may spend, and what is answered from memory."""

from __future__ import annotations

from pydantic import BaseModel, Field, field_validator

_DATABASES = ("postgresql://", "postgres://", "postgresql+asyncpg://", "sqlite:///", "sqlite+aiosqlite:///")


class MoneySettings(BaseModel):
    """This group's settings; see Settings."""

    data_dir: str = Field("data", description="folder of what is kept: the ledger, and what waits to be written to it")
    database_url: str = Field(
        "", description="postgresql://user:password@host/name; default an SQLite file in DATA_DIR; off keeps nothing"
    )

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        if value and value != "off" and not value.startswith(_DATABASES):
            raise ValueError("must be postgresql://user:password@host/name, sqlite:////path/to/file, or off")
        return value
