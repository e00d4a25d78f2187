"""What operators look at."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr


class OperateSettings(BaseModel):
    """This group's settings; see Settings."""

    otel_exporter_otlp_endpoint: str = Field(
        "", description="OTLP/HTTP collector, http://host:4318: traces and metrics go there; needs the extra [otel]"
    )
    otel_sdk_disabled: bool = Field(default=False, description="true turns OpenTelemetry off whatever else is set")

    dashboard_host: str = Field(
        "127.0.0.1", description="address the dashboard listens on; anything but loopback needs ADMIN_KEY"
    )
    dashboard_port: int = Field(8001, ge=0, le=65535, description="port of the dashboard; 0 takes a free one")
    dashboard_gateway_url: str = Field("", description="where the dashboard finds Sluice; default http://HOST:PORT")
    dashboard_url: str = Field("", description="the dashboard's address in links; default this host, DASHBOARD_PORT")
    dashboard_api_key: SecretStr | None = Field(
        None, description="key of the dashboard's playground; default the first of API_KEYS"
    )
