# Stand-ins for the base images, for machines that reach no registry. They test our Dockerfiles, compose file and
# wiring, not the real bases. standins.go says which target stands for which base, and makes the files copied here.

# Two roots are imported before: a Debian, and one that has this machine's Go too, with the modules and the packages of
# the gate, so that a build needs no network. All but the gate's base are for this machine, whatever is built for.
FROM --platform=$BUILDPLATFORM stand-ins/debian AS debian
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

FROM --platform=$BUILDPLATFORM stand-ins/golang AS golang
ENV PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENV GOPATH=/go GOTOOLCHAIN=local GOPROXY=off GOCACHE=/go/cache
WORKDIR /go

FROM debian AS python
ADD wheels.tar /
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
RUN ln -s python3 /usr/bin/python && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
CMD ["python3"]

FROM debian AS envoy
ADD envoy.tar /usr/local/bin
RUN groupadd --non-unique --gid 101 envoy && useradd --non-unique --uid 101 --gid 101 --no-create-home envoy
RUN printf '%s\n' '#!/bin/sh' 'case $1 in -*) set -- envoy "$@" ;; esac' 'exec "$@"' >/docker-entrypoint.sh && chmod 0755 /docker-entrypoint.sh
ENTRYPOINT ["/docker-entrypoint.sh"]
CMD ["envoy", "-c", "/etc/envoy/envoy.yaml"]

# Like the image's, its Redis is not in protected mode.
FROM debian AS redis
RUN mkdir /data && chown redis:redis /data
RUN printf '%s\n' '#!/bin/sh' '[ "$1" != redis-server ] || { shift; set -- redis-server --protected-mode no "$@"; }' 'exec "$@"' >/docker-entrypoint.sh && chmod 0755 /docker-entrypoint.sh
VOLUME /data
WORKDIR /data
ENTRYPOINT ["/docker-entrypoint.sh"]
CMD ["redis-server"]

FROM debian AS prometheus
RUN mkdir -p /prometheus /etc/prometheus && chown nobody:nogroup /prometheus
RUN ln -s busybox /bin/wget
USER nobody
WORKDIR /prometheus
VOLUME /prometheus
ENTRYPOINT ["prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]

FROM debian AS files
RUN mkdir -p /files/etc/ssl/certs /files/home/nonroot /files/tmp && \
    cp /etc/ssl/certs/ca-certificates.crt /files/etc/ssl/certs && \
    echo 'root:x:0:0:root:/root:/sbin/nologin' >/files/etc/passwd && \
    echo 'nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin' >>/files/etc/passwd && \
    chown 65532:65532 /files/home/nonroot && chmod 1777 /files/tmp

FROM scratch AS distroless
COPY --from=files /files /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532
WORKDIR /home/nonroot
