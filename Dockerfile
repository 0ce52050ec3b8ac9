# The server as an image. It listens on every address of its container, so it is run in production mode; keys/ has the
# keys of the tokens and keys.json, which names them (docs/operations.md), all readable for the user 10001.
#
#   docker build -t haulcast .
#   docker run --stop-timeout 30 -p 127.0.0.1:8080:8080 -v haulcast:/var/lib/haulcast -v "$PWD/keys:/run/keys:ro" \
#       -e HAULCAST_ENV=production -e HAULCAST_ORIGINS= -e HAULCAST_JWT_KEYS=@/run/keys/keys.json haulcast

FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY constraints.txt ./
RUN python -m pip install --constraint constraints.txt setuptools
COPY LICENSE README.md pyproject.toml setup.cfg ./
COPY src src
RUN python -m pip wheel --no-build-isolation --constraint constraints.txt --wheel-dir /wheels .
# An environment without pip, the only thing that the final image takes over.
RUN python -m venv --without-pip /opt/haulcast \
    && python -m pip --python /opt/haulcast install --no-index --find-links /wheels haulcast


FROM python:3.12-slim
# By number, so that an orchestrator can see that it is not root.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/haulcast --shell /usr/sbin/nologin haulcast \
    && install -d -o haulcast -g haulcast -m 0750 /var/lib/haulcast
COPY --from=build /opt/haulcast /opt/haulcast
ENV PATH=/opt/haulcast/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HAULCAST_HOST=0.0.0.0 \
    HAULCAST_PORT=8080 \
    HAULCAST_DATA_DIR=/var/lib/haulcast
WORKDIR /var/lib/haulcast
USER 10001:10001
VOLUME ["/var/lib/haulcast"]
EXPOSE 8080
# Without proxies: an http_proxy in the environment must not decide whether this container lives.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(f\"http://127.0.0.1:{os.environ['HAULCAST_PORT']}/health/live\", timeout=2)"]
ENTRYPOINT ["haulcast"]
CMD ["serve"]
