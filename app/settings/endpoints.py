"""Endpoints beside chat, and what is kept for them."""

from __future__ import annotations

from pydantic import BaseModel


class EndpointsSettings(BaseModel):
    """This group's settings; see Settings."""
