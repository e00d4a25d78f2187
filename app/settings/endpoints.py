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
