# The same for Alpine, whose C library is musl: it is the same file of the library.
#
#     docker build -t shop -f examples/docker/alpine.Dockerfile examples/docker
FROM alpine:3 AS build
RUN apk add --no-cache build-base
COPY app.c /src/app.c
RUN cc -O2 -o /app /src/app.c

FROM alpine:3
COPY --from=build /app /app
RUN mkdir -m 700 /var/cache/sopin && chown 1000:1000 /var/cache/sopin
ENV SOPIN_STORE=/var/cache/sopin
USER 1000:1000
COPY --from=sopin /libsopin.so /usr/local/lib/
ENV LD_PRELOAD=/usr/local/lib/libsopin.so
ENTRYPOINT ["/app", "/plugins/plugin.so"]
