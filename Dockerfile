# syntax=docker/dockerfile:1.7
# fraudstream: one image for workers, the monitor and every one-shot. The kernels are compiled while it is built, so that
# a container scores its first event as fast as its last.
#
#   docker build -t fraudstream .
#   docker build -t fraudstream:gpu --build-arg ENGINE=gpu .     (needs the NVIDIA container runtime to run)

FROM python:3.11.11-slim-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG ENGINE=cpu
# LightGBM and XGBoost load it, at the compilation of the kernels too.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/fraudstream
ENV PATH=/opt/fraudstream/bin:$PATH
WORKDIR /src
# What changes seldom first: the pinned packages, then ours. ENGINE is cpu or gpu.
COPY deploy/requirements-${ENGINE}.txt requirements.txt
RUN python -m pip install --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY state ./state
COPY models ./models
COPY stream ./stream
RUN python -m pip install --no-deps --no-build-isolation .
# Kernels are compiled for this machine's CPU. On another one they are compiled once, at the first start, so they lie
# where a container may write.
ENV NUMBA_CACHE_DIR=/var/lib/fraudstream/kernels
WORKDIR /
RUN python -c 'from state.windows import warm; warm()' \
 && python -c 'from models.ensemble import warm; warm()' \
 && python -c 'from stream.codec import warm_codec; warm_codec()'

FROM python:3.11.11-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 fraudstream \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/fraudstream --no-create-home --shell /usr/sbin/nologin fraudstream \
 # Volumes take the owner of the folder they are mounted on.
 && install -d -o 10001 -g 10001 /var/lib/fraudstream /registry /data
COPY --from=build /opt/fraudstream /opt/fraudstream
COPY --from=build --chown=10001:10001 /var/lib/fraudstream/kernels /var/lib/fraudstream/kernels
COPY --chmod=0555 deploy/first_model.sh deploy/simulated_history.sh deploy/simulated_labels.py /opt/fraudstream/share/
ENV PATH=/opt/fraudstream/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/lib/fraudstream/kernels
WORKDIR /var/lib/fraudstream
USER 10001:10001
# A worker's; the monitor listens on 9109.
EXPOSE 9108
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9108/healthz', timeout=4)"]
ENTRYPOINT ["fraudstream"]
CMD ["worker"]
