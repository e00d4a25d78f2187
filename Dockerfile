# syntax=docker/dockerfile:1
# Targets: `gateway` (default, no local models) and `engine` (with them, on the CPU).
FROM python:3.12-slim AS build
WORKDIR /build
COPY scripts/lock/ lock/
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r lock/runtime.txt

FROM build AS build-engine
RUN /venv/bin/pip install --no-cache-dir --require-hashes -r lock/local.txt

FROM python:3.12-slim AS base
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin sluice
WORKDIR /srv/sluice
COPY app/ app/
COPY prompts/ prompts/
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0
USER sluice
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\", 8000)}/health/live', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "app"]
CMD ["serve"]

FROM base AS engine
COPY --from=build-engine /venv /venv

FROM base AS gateway
COPY --from=build /venv /venv
