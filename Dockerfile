# With BuildKit, which Docker and Compose use: docker build --platform linux/arm64 . needs no emulation.
FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=dev
# As scripts/release.sh builds it: the binary is the one of the archive, and so is its SBOM.
RUN --mount=type=cache,target=/root/.cache/go-build CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /refrakt-gate ./cmd/refrakt-gate

# No shell, no package manager.
FROM gcr.io/distroless/static-debian12:nonroot
LABEL org.opencontainers.image.title="refrakt-gate"
LABEL org.opencontainers.image.description="Envoy external authorization: rate limits and queue back-pressure"
LABEL org.opencontainers.image.source="https://github.com/refrakt-hub/refrakt-gate"
LABEL org.opencontainers.image.documentation="https://github.com/refrakt-hub/refrakt-gate#readme"
LABEL org.opencontainers.image.licenses="Apache-2.0"
LABEL org.opencontainers.image.base.name="gcr.io/distroless/static-debian12:nonroot"
# By number: Kubernetes can't tell from a name that it is not root.
USER 65532:65532
# In the PATH, so that `docker compose exec gate refrakt-gate check` finds it.
COPY --from=build /refrakt-gate /usr/local/bin/refrakt-gate
EXPOSE 9001 9464
ENTRYPOINT ["/usr/local/bin/refrakt-gate"]
CMD ["serve"]
# Last, because they change with each commit.
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.version="$VERSION"
LABEL org.opencontainers.image.revision="$REVISION"
