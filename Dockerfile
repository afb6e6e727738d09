# Images of saccade: serve-cpu, serve-gpu, export. Promises: hash-checked packages only, no torch in a serving image, no
# root, nothing written outside /dev/shm while serving (a read-only root file system is fine).
#
#   docker build --target serve-cpu --tag saccade:serve-cpu .
#   k8s/image/build_image.sh serve-cpu                            the same without a daemon
#   docker build --secret id=pip,src=pip.conf …                   with your own package index
#
# No init process (tini): the supervisor is made to be process 1. It handles SIGTERM and SIGINT, waits for every child it
# starts, and its children start none.

ARG BASE_IMAGE=python:3.11-slim-bookworm

# --- Build stages: installer and build backend in /opt/tools, the program in /opt/saccade ---

FROM ${BASE_IMAGE} AS tools
WORKDIR /src
COPY k8s/image/build_requirements.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --require-hashes --no-deps -r build_requirements.txt \
 && python3 -m venv --without-pip /opt/saccade

FROM tools AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY saccade saccade
COPY service service
COPY models models
COPY export export
RUN /opt/tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheels .

FROM tools AS packages
COPY pyproject.toml constraints.txt k8s/image/image_requirements.py k8s/image/slim.sh ./
# strip, where packages of the base image can be had: 25 MB of a serving image.
RUN (apt-get update && apt-get install --yes --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*) || true

FROM packages AS packages-cpu
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 image_requirements.py cpu object-store tracing > wanted.txt \
 && /opt/tools/bin/pip --python /opt/saccade/bin/python install --no-cache-dir --only-binary :all: \
        --require-hashes --constraint constraints.txt --requirement wanted.txt
COPY --from=wheel /wheels /wheels
RUN /opt/tools/bin/pip --python /opt/saccade/bin/python install --no-index --no-deps /wheels/*.whl \
 && ./slim.sh /opt/saccade/lib/python3.*/site-packages

FROM packages AS packages-export
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 image_requirements.py cpu export object-store > wanted.txt \
 && /opt/tools/bin/pip --python /opt/saccade/bin/python install --no-cache-dir --only-binary :all: \
        --require-hashes --constraint constraints.txt --requirement wanted.txt
COPY --from=wheel /wheels /wheels
RUN /opt/tools/bin/pip --python /opt/saccade/bin/python install --no-index --no-deps /wheels/*.whl

# CUDA and cuDNN are wheels of the extra `gpu`; only the driver comes from the node. TensorRT's libraries are not in the
# package index: k8s/README.md says how they are added for an H100 or H200, which TensorRT for RTX does not serve.
FROM packages AS packages-gpu
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 image_requirements.py gpu gpu-jpeg object-store rtx tracing > wanted.txt \
 && /opt/tools/bin/pip --python /opt/saccade/bin/python install --no-cache-dir --only-binary :all: \
        --require-hashes --constraint constraints.txt --requirement wanted.txt
COPY --from=wheel /wheels /wheels
RUN /opt/tools/bin/pip --python /opt/saccade/bin/python install --no-index --no-deps /wheels/*.whl \
 && ./slim.sh /opt/saccade/lib/python3.*/site-packages

# --- Targets ---

FROM ${BASE_IMAGE} AS serve-cpu
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="saccade serve-cpu" \
      org.opencontainers.image.description="Serves gated vision models over HTTP, on CPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A new volume of Docker's takes over owner and folders of the place where it is mounted first.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin saccade \
 && install --directory --owner=10001 --group=10001 /repository /repository/.tuning
COPY --from=packages-cpu /opt/saccade /opt/saccade
ENV PATH=/opt/saccade/bin:${PATH} \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1 \
    SACCADE_HOST=0.0.0.0 \
    SACCADE_REPOSITORY=/repository \
    SACCADE_LOG_FORMAT=json
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /
EXPOSE 8000
STOPSIGNAL SIGTERM
# Live, not ready: what restarts a container must not act on a repository that is still loading. http.client, because
# urllib would ask a proxy.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python3", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('SACCADE_PORT', '8000')), timeout=2); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["saccade"]
CMD ["serve"]

FROM ${BASE_IMAGE} AS serve-gpu
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="saccade serve-gpu" \
      org.opencontainers.image.description="Serves gated vision models over HTTP, on an NVIDIA GPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A new volume of Docker's takes over owner and folders of the place where it is mounted first.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin saccade \
 && install --directory --owner=10001 --group=10001 /repository /repository/.tuning
COPY --from=packages-gpu /opt/saccade /opt/saccade
ENV PATH=/opt/saccade/bin:${PATH} \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1 \
    SACCADE_HOST=0.0.0.0 \
    SACCADE_REPOSITORY=/repository \
    SACCADE_LOG_FORMAT=json \
    SACCADE_DEVICE=cuda:0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python3", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('SACCADE_PORT', '8000')), timeout=2); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["saccade"]
CMD ["serve"]

# Mount the repository read-write at /repository; work files stay in /var/lib/saccade.
FROM ${BASE_IMAGE} AS export
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="saccade export" \
      org.opencontainers.image.description="Exports, gates and publishes vision models for saccade" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN useradd --uid 10001 --user-group --create-home --home-dir /var/lib/saccade --shell /usr/sbin/nologin saccade \
 && install --directory --owner=10001 --group=10001 /repository /repository/.tuning /var/lib/saccade/work
COPY --from=packages-export /opt/saccade /opt/saccade
# The reference recipes and checkpoints, as `models/recipes/…` like in the source tree.
RUN ln -s "$(/opt/saccade/bin/python -c 'import pathlib, saccade.models; print(pathlib.Path(saccade.models.__file__).parent)')" /var/lib/saccade/models
ENV PATH=/opt/saccade/bin:${PATH} \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1 \
    SACCADE_REPOSITORY=/repository
USER 10001:10001
WORKDIR /var/lib/saccade
STOPSIGNAL SIGTERM
ENTRYPOINT ["saccade-export"]
CMD ["--help"]
