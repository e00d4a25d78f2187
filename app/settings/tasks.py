"""Prompt files called as models, and pipelines of them."""

from __future__ import annotations

from pydantic import BaseModel


class TasksSettings(BaseModel):
    """This group's settings; see Settings."""
