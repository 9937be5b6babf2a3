# Varnish, which compiles every configuration to a shared object and loads it. Several
# are loaded, one after the other, and discarded.
# packages: varnish curl gcc
# needs: varnishd varnishadm curl cc
# needs-success: id vcache || [ "$(id -u)" != 0 ]
# pinned: /vgc\.so
# results: 12
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
port=$(free_port)
vcl() {
    printf 'vcl 4.1;\nimport std;\nbackend default none;\nsub vcl_recv { return (synth(200, "version " + std.toupper("%s"))); }\n' "$1" >"$2"
}
vcl first "$WORK/first.vcl"
mkdir -p "$WORK/varnish"
varnishd -F -n "$WORK/varnish" -a "127.0.0.1:$port" -f "$WORK/first.vcl" -s malloc,32m -p vcc_allow_inline_c=off \
    >out 2>&1 &
varnishd=$!
trap 'kill $varnishd' EXIT
tries=0
until curl -s -o /dev/null "http://127.0.0.1:$port/"; do
    tries=$((tries + 1)) && [ $tries -lt 400 ] || { cat out; exit 1; }
    sleep 0.05
done
ask() { curl -s -D - -o /dev/null "http://127.0.0.1:$port/" | head -n 1 | tr -d '\r'; }
ask
for version in one two three four five six seven eight; do
    vcl $version "$WORK/$version.vcl"
    varnishadm -n "$WORK/varnish" vcl.load $version "$WORK/$version.vcl" >/dev/null
    varnishadm -n "$WORK/varnish" vcl.use $version >/dev/null
    ask
done
for version in one two three four; do varnishadm -n "$WORK/varnish" vcl.discard $version >/dev/null && echo "$version: discarded"; done
sleep 1
ask
varnishadm -n "$WORK/varnish" panic.show 2>&1 | head -n 1
