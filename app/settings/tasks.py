"""Prompt files called as models, and pipelines of them."""

from __future__ import annotations

from pydantic import BaseModel, Field


class TasksSettings(BaseModel):
    """This group's settings; see Settings."""

    map_max_parallel: int = Field(5, ge=1, le=64, description="calls at once of one task that works through a list")
    medium_score_threshold: float = Field(
        0.7, ge=0, le=1, allow_inf_nan=False, description="score from which task/medium-scoring selects a post"
    )
    medium_max_selected_posts: int = Field(5, ge=1, description="posts that task/medium-scoring selects at most")
    medium_max_posts: int = Field(50, ge=1, description="posts that task/medium-scoring scores at most in one call")
