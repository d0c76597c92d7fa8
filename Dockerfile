# The one image of Moat: the operator and the agent are the same binary.
# hack/image/build.sh builds it, with or without a registry (make image).

FROM --platform=$BUILDPLATFORM docker.io/library/golang:1.26-bookworm AS build
WORKDIR /src

# How Go reaches modules, and where its caches are: the builder's own, unless
# build.sh points these at the machine's.
ARG GOPROXY GOFLAGS=-trimpath GOMODCACHE=/cache/mod GOCACHE=/cache/build
ARG TARGETOS TARGETARCH VERSION=dev

COPY . .
RUN --mount=type=cache,target=/cache/mod --mount=type=cache,target=/cache/build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -ldflags "-s -w -X main.version=$VERSION" -o /out/moat ./cmd/moat

FROM docker.io/library/debian:bookworm-slim

# Debian's package holds both backends, iptables-nft and iptables-legacy; the
# agent picks the one that its node uses. Sets need no tool: they go by netlink.
RUN apt-get update \
    && apt-get install -y --no-install-recommends iptables \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

COPY --from=build /out/moat /usr/local/bin/moat

# The operator runs as this user. The agent needs root for netfilter: its
# DaemonSet says so, and gives it two capabilities only.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/moat"]
