# Debian in both stages, so that the interpreter that the environment was made with is the one that runs it.
# Pin it by the digest that your registry gives: --build-arg BASE=debian:trixie-slim@sha256:…
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc python3 python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/aimux && python3 -m venv /opt/build
WORKDIR /src
# By version and hash (`make constraints`): nothing is installed that these files don't name.
COPY deploy/container/requirements.txt deploy/container/build-requirements.txt ./
RUN /opt/aimux/bin/pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: -r requirements.txt \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: -r requirements.txt -r build-requirements.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY aimux aimux
COPY providers providers
# With the hot path in machine code, for which the compiler reads the types of what aimux needs: two minutes and 2 GB of memory.
# Where that can't be had the wheel is pure Python, and the build says why.
RUN AIMUX_COMPILE=1 /opt/build/bin/pip wheel --verbose --no-build-isolation --no-deps --wheel-dir /dist . \
 && /opt/aimux/bin/pip install --no-cache-dir --no-index --no-deps /dist/*.whl \
 && /opt/aimux/bin/pip check \
 && /opt/aimux/bin/pip uninstall --yes pip

FROM ${BASE}
ARG REVISION=unknown
LABEL org.opencontainers.image.title="aimux" \
      org.opencontainers.image.description="Self-hosted gateway that lets a team reach its Claude and ChatGPT accounts through one door" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --home-dir /var/lib/aimux --shell /usr/sbin/nologin --no-log-init aimux \
 && install --directory --owner aimux --group aimux --mode 0700 /var/lib/aimux
COPY --from=build /opt/aimux /opt/aimux
COPY deploy/container/config.yaml /etc/aimux/config.yaml
ENV PATH=/opt/aimux/bin:$PATH \
    AIMUX_CONFIG=/etc/aimux/config.yaml \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
# Credentials and everything else that has to outlive the container. Nothing else is ever written.
VOLUME /var/lib/aimux
EXPOSE 8080
# SIGTERM lets open streams end (drain_timeout, 30 s), and a renewal that has begun (30 s): docker's 10 s are too few.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s \
  CMD ["aimux", "health"]
ENTRYPOINT ["aimux"]
CMD ["serve"]
