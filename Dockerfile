# syntax=docker/dockerfile:1
# Targets: `gateway` (default), `dashboard` (the operator's pages), `engine` (local models as well).
#   docker build -t sluice .
#   docker build -t sluice-engine --target engine .                    # on the CPU
#   docker build -t sluice-engine --target engine --build-arg MLX=cuda13 .
ARG PYTHON=3.12

# The full image has what strips symbols; nothing of it but /venv gets into the images below.
FROM python:${PYTHON}-bookworm AS build
WORKDIR /build
COPY scripts/lock/ lock/
# No pip in the environment, no tests, no symbols: a third of its size. The libraries in *.libs must stay as they are.
RUN python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install --no-cache-dir --no-compile --require-hashes -r lock/runtime.txt \
    && find /venv -type d -name tests -prune -exec rm -r {} + \
    && find /venv -name '*.so*' -not -path '*.libs/*' -exec strip --strip-unneeded {} +

FROM build AS build-dashboard
RUN pip --python /venv/bin/python install --no-cache-dir --no-compile --require-hashes -r lock/dashboard.txt

FROM build AS build-engine
# cpu, or cuda12 / cuda13 for NVIDIA: the version is that of the lock file, the wheels are then not checked by hash.
ARG MLX=cpu
RUN pip --python /venv/bin/python install --no-cache-dir --require-hashes -r lock/local.txt \
    && if [ "$MLX" != cpu ]; then \
        version=$(sed -n 's/^mlx==\([^ ;]*\).*/\1/p' lock/local.txt) \
        && pip --python /venv/bin/python install --no-cache-dir "mlx[$MLX]==$version"; \
    fi

FROM python:${PYTHON}-slim-bookworm AS base
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin sluice \
    && install -d -o sluice -g sluice /data
WORKDIR /srv/sluice
COPY app/ app/
COPY prompts/ prompts/
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 DATA_DIR=/data
USER 10001
VOLUME /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "app"]

FROM base AS dashboard
COPY --from=build-dashboard /venv /venv
ENV DASHBOARD_HOST=0.0.0.0
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"DASHBOARD_PORT\", 8001)}/login', timeout=2)"]
CMD ["dashboard"]

FROM base AS serving
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\", 8000)}/health/live', timeout=2)"]
CMD ["serve"]

FROM serving AS engine
COPY --from=build-engine /venv /venv

FROM serving AS gateway
COPY --from=build /venv /venv
# The byte code of what serving imports, 20 MB: without it each start compiles all of that anew, for more than half of its time.
USER root
RUN PYTHONDONTWRITEBYTECODE= python -c "import app.__main__, app.cli.serve, app.serve, app.main, app.api.site, app.tasks.contract, \
    app.ledger.connection, app.ledger.tables.create, sqlalchemy.dialects.sqlite.aiosqlite, jinja2, jsonschema, yaml, \
    uvloop, uvicorn.lifespan.on"
USER 10001
