"""Proof that the cheaper model is as good."""

from __future__ import annotations

from pydantic import BaseModel


class ParitySettings(BaseModel):
    """This group's settings; see Settings."""
