# Two images from one file: `service` (the default, without torch) and `training`.
#   docker build -t ctrlift:0.1.0 .
#   docker build -t ctrlift-training:0.1.0 --target training --build-arg PIP_ARGS="--extra-index-url ..." .
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY bundle/ bundle/
COPY cli/ cli/
COPY models/ models/
COPY service/ service/
COPY training/ training/
# The compiled operators choose the instruction set when they are opened, so they may be built anywhere. What reads and
# writes requests needs the headers of NumPy, and is for this version of Python.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ \
    && python -m pip install --no-cache-dir --constraint constraints.txt numpy \
    && python -m service.engines.kernel.build && python -m service.compiled.build
RUN ["python", "-m", "pip", "wheel", "--no-cache-dir", "--no-deps", "--wheel-dir", "/wheels", "."]

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1
COPY constraints.txt /opt/constraints.txt
COPY --from=wheel /wheels /opt/wheels
RUN useradd --system --uid 10001 --user-group --home-dir /tmp --shell /usr/sbin/nologin ctrlift

FROM base AS training
# Further arguments for pip, such as an index with CPU builds of torch.
ARG PIP_ARGS=""
RUN python -m pip install --no-cache-dir ${PIP_ARGS} --constraint /opt/constraints.txt "/opt/wheels/ctrlift-0.1.0-py3-none-any.whl[train]"
COPY configs/ /opt/configs/
WORKDIR /work
USER 10001:10001
ENTRYPOINT ["ctrlift"]
CMD ["train", "--help"]

FROM base AS service
ARG PIP_ARGS=""
RUN python -m pip install --no-cache-dir ${PIP_ARGS} --constraint /opt/constraints.txt /opt/wheels/ctrlift-0.1.0-py3-none-any.whl
ENV CTRLIFT_SERVER__HOST=0.0.0.0 \
    CTRLIFT_SERVER__PORT=8000 \
    CTRLIFT_MODELS__DIR=/bundles
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["ctrlift"]
CMD ["serve"]
