# The product without its embedded servers. On Linux pip takes the CUDA build of torch; for a CPU image name an index
# that has the CPU build: docker build --build-arg PIP_EXTRA_INDEX_URL=… .
FROM python:3.11-slim AS build

ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src

# The largest layer changes only with its pin.
COPY constraints.txt .
RUN pip install --constraint constraints.txt torch
COPY . .
RUN pip install --constraint constraints.txt .


FROM python:3.11-slim

RUN useradd --uid 10001 --create-home ganomaly && install --directory --owner=ganomaly /models
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/tmp \
    GANOMALY_REGISTRY__URL=/models
USER 10001
WORKDIR /home/ganomaly
VOLUME /models
EXPOSE 6066

ENTRYPOINT ["ganomaly-stream"]
CMD ["worker"]
