# The production image: the binary without the embedded Temporal server.
FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -tags slim -trimpath -buildvcs=false -ldflags='-s -w' -o /postroad ./cmd/postroad

# Alpine and not an empty image: its wget is the health check.
FROM alpine:3.22
RUN apk add --no-cache ca-certificates tzdata && \
    adduser -u 10001 -D -H postroad
COPY --from=build /postroad /usr/local/bin/postroad
USER postroad
ENTRYPOINT ["/usr/local/bin/postroad"]
