# The production image: one static binary without the embedded Temporal server,
# the certificates of public authorities, licences, and nothing else: no shell, no
# root.
FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
ARG TARGETOS
ARG TARGETARCH
# Empty: the version that the source says it becomes.
ARG VERSION=
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -tags slim -trimpath -buildvcs=false -ldflags="-s -w ${VERSION:+-X main.releaseVersion=$VERSION}" \
    -o /postroad ./cmd/postroad && \
    (cd deploy/bill && go build -o /bill .) && /bill notices /postroad >/THIRD_PARTY_NOTICES

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /postroad /usr/local/bin/postroad
COPY --from=build /THIRD_PARTY_NOTICES /THIRD_PARTY_NOTICES
COPY LICENSE /LICENSE
ENV PATH=/usr/local/bin
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/postroad"]
