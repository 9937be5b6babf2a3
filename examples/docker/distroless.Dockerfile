# The same for an image without a shell. So another stage makes the directory of the store, and
# COPY keeps its mode.
#
#     docker build -t shop -f examples/docker/distroless.Dockerfile examples/docker
FROM gcc:12-bookworm AS build
COPY app.c /src/app.c
RUN cc -O2 -o /app /src/app.c
RUN install -d -m 700 /cache/sopin

FROM gcr.io/distroless/base-debian12:nonroot
COPY --from=build /app /app
COPY --from=build --chown=65532:65532 /cache/ /var/cache/
ENV SOPIN_STORE=/var/cache/sopin
COPY --from=sopin /libsopin.so /usr/local/lib/
ENV LD_PRELOAD=/usr/local/lib/libsopin.so
ENTRYPOINT ["/app", "/plugins/plugin.so"]
