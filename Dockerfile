FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /refrakt-gate ./cmd/refrakt-gate

# No shell, no package manager.
FROM gcr.io/distroless/static-debian12:nonroot
# By number: Kubernetes can't tell from a name that it is not root.
USER 65532:65532
# In the PATH, so that `docker compose exec gate refrakt-gate check` finds it.
COPY --from=build /refrakt-gate /usr/local/bin/refrakt-gate
EXPOSE 9001 9464
ENTRYPOINT ["/usr/local/bin/refrakt-gate"]
CMD ["serve"]
