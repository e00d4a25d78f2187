"""What calls cost, what they save, who may spend, and what is answered from memory."""

from __future__ import annotations

from pydantic import BaseModel


class MoneySettings(BaseModel):
    """This group's settings; see Settings."""
