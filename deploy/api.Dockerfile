# The API, the dispatcher and the migrations: no torch.
#
#   docker build --file deploy/api.Dockerfile --tag snugnet-api .
FROM python:3.12.12-slim-bookworm AS build
# Further arguments for pip: another index, or a torch for one kind of device only.
ARG PIP_ARGS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/snugnet
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY search search
COPY predictors predictors
COPY service service
COPY workers workers
COPY migrations migrations
RUN /opt/snugnet/bin/pip install ${PIP_ARGS} ".[server,postgresql,s3,otel]"

FROM python:3.12.12-slim-bookworm
# One number in all images: they share the volumes of keys and of the quiet lock.
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin snugnet \
 && install --directory --owner=snugnet --group=snugnet --mode=0700 /data /keys /keys/admin /keys/agent
COPY --from=build /opt/snugnet /opt/snugnet
ENV PATH=/opt/snugnet/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SNUGNET_DATA_DIR=/data \
    SNUGNET_LOG_FORMAT=json
USER 10001:10001
WORKDIR /data
STOPSIGNAL SIGTERM
CMD ["snugnet", "api", "--host", "0.0.0.0"]
