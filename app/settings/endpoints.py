"""Endpoints beside chat, and what is kept for them."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.endpoints import EXAMPLES


class EndpointsSettings(BaseModel):
    """This group's settings; see Settings."""

    model_moderation: str = Field(EXAMPLES["moderation"], description="role moderation: serves /v1/moderations")
    model_transcription: str = Field(
        EXAMPLES["transcription"], description="role transcription: serves /v1/audio/transcriptions and translations"
    )
    model_speech: str = Field(EXAMPLES["speech"], description="role speech: serves /v1/audio/speech")
    model_image: str = Field(EXAMPLES["image"], description="role image: serves /v1/images")
    responses_store: bool = Field(
        default=False, description="true keeps responses in the database, for previous_response_id and GET by id"
    )
    responses_keep_days: float = Field(30, gt=0, allow_inf_nan=False, description="days after which they are forgotten")
    anthropic_version: str = Field(
        "2026-10-21",
        pattern=r"^\d{4}-\d{2}-\d{2}$",
        description="anthropic-version that is spoken; 2023-06-01 is the last that takes temperature, top_p and top_k",
    )
    anthropic_max_tokens: int = Field(
        8192, ge=1, description="the longest answer of Anthropic's models where a call names no limit, in tokens"
    )

    batch_parallel: int = Field(
        8, ge=0, le=1000, description="lines of batches that one worker answers at once; 0: this one works on none"
    )
    max_file_mb: float = Field(512, gt=0, allow_inf_nan=False, description="larger uploads to /v1/files get a 413")
