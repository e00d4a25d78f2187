"""What operators look at."""

from __future__ import annotations

from pydantic import BaseModel, Field


class OperateSettings(BaseModel):
    """This group's settings; see Settings."""

    otel_exporter_otlp_endpoint: str = Field(
        "", description="OTLP/HTTP collector, http://host:4318: traces and metrics go there; needs the extra [otel]"
    )
    otel_sdk_disabled: bool = Field(default=False, description="true turns OpenTelemetry off whatever else is set")
