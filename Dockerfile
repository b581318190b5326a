# The images of vote-frontend, vote-worker and vote-results. `deploy/images` builds all three and compiles them only
# once; by hand: docker build --target vote-frontend -t vote-frontend .
#
# An image holds one binary and what a C library needs, but no shell. It runs as user and group 65532 (the group is also
# that of the Redis socket). It writes nothing to its root file system, so run it read-only. On SIGTERM it finishes its
# work and exits.

# Registry of the base images: set it to the prefix of a mirror, or choose other images.
ARG REGISTRY=docker.io/library
ARG BUILD_IMAGE=${REGISTRY}/rust:1.95-bookworm
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot
# Source of the binaries: `compiled` here, or `prebuilt`, from the folder PREBUILT of the build context.
ARG BINARIES=compiled

FROM ${BUILD_IMAGE} AS compiled
WORKDIR /src
COPY . .
# For certificates and metrics, which name the commit of the build.
ARG REVISION=
RUN BUILD_COMMIT=${REVISION} cargo build --profile dist --locked --bin vote-frontend --bin vote-worker --bin vote-results \
    && mkdir /out && cp target/dist/vote-frontend target/dist/vote-worker target/dist/vote-results /out/

FROM scratch AS prebuilt
ARG PREBUILT=target/dist
COPY ${PREBUILT}/vote-frontend ${PREBUILT}/vote-worker ${PREBUILT}/vote-results /out/

FROM ${BINARIES} AS binaries

FROM ${RUN_IMAGE} AS run
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION} \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.vendor="vote"
ENV VOTE_LOG_FORMAT=json
USER 65532:65532

FROM run AS vote-frontend
LABEL org.opencontainers.image.title="vote-frontend" \
      org.opencontainers.image.description="Accepts votes over HTTP, appends them to a queue, and acknowledges each once it is on disk"
COPY --from=binaries /out/vote-frontend /usr/local/bin/
ENV VOTE_LISTEN=0.0.0.0:8080 VOTE_ADMIN_LISTEN=0.0.0.0:9081
EXPOSE 8080 9081
HEALTHCHECK --interval=5s --timeout=3s --retries=3 CMD ["vote-frontend", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/vote-frontend"]

FROM run AS vote-worker
LABEL org.opencontainers.image.title="vote-worker" \
      org.opencontainers.image.description="Reads all queues, deduplicates the votes, and commits each to the store exactly once"
COPY --from=binaries /out/vote-worker /usr/local/bin/
ENV VOTE_ADMIN_LISTEN=0.0.0.0:9082
EXPOSE 9082
HEALTHCHECK --interval=5s --timeout=3s --retries=3 CMD ["vote-worker", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/vote-worker"]

FROM run AS vote-results
LABEL org.opencontainers.image.title="vote-results" \
      org.opencontainers.image.description="Shows, audits and certifies the results of polls, from the store only"
COPY --from=binaries /out/vote-results /usr/local/bin/
ENV VOTE_LISTEN=0.0.0.0:8081 VOTE_ADMIN_LISTEN=0.0.0.0:9083
EXPOSE 8081 9083
HEALTHCHECK --interval=5s --timeout=3s --retries=3 CMD ["vote-results", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/vote-results"]
