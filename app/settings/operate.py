"""What operators look at."""

from __future__ import annotations

from pydantic import BaseModel


class OperateSettings(BaseModel):
    """This group's settings; see Settings."""
