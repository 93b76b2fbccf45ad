# syntax=docker/dockerfile:1
# docker build -t rollgate .
# docker run -p 8080:8080 -v $PWD/config:/etc/rollgate:ro -v rollgate-state:/var/lib/rollgate rollgate run --config /etc/rollgate/container.yaml

# To pin further, give a digest: --build-arg BUILDER=rust@sha256:...
ARG BUILDER=rust:1.95.0-slim-bookworm
ARG RUNTIME=debian:bookworm-slim

FROM ${BUILDER} AS build
# zlib-ng is built with cmake, jemalloc with make.
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin rollgate \
    && install -D -m 0755 target/release/rollgate /out/rollgate

FROM ${RUNTIME}
# A fixed number, so that volumes and `runAsUser` can name it. The state directory is the only place it may write.
RUN groupadd --gid 10001 rollgate \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin rollgate \
    && install -d -m 0700 -o 10001 -g 10001 /var/lib/rollgate
# The authorities for https upstreams, without a package manager's run in this stage.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/rollgate /usr/local/bin/rollgate
USER 10001:10001
WORKDIR /var/lib/rollgate
VOLUME /var/lib/rollgate
EXPOSE 8080 9900
# SIGTERM drains; give `docker stop --time` more than limits.drain_delay + limits.drain_timeout (30 s by default).
STOPSIGNAL SIGTERM
# Whether the process answers on admin.address (port 9900 unless HEALTH_PORT says otherwise). By bash alone: an HTTP
# client in the image would be there for this only. /livez, not /readyz: restarting a proxy heals no upstream.
ENV HEALTH_PORT=9900
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/$HEALTH_PORT && printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' >&3 && read -r -t 2 answer <&3 && [[ $answer == *' 200 '* ]]"]
ENTRYPOINT ["rollgate"]
CMD ["run", "--config", "/etc/rollgate/rollgate.yaml"]
