# Apache with its modules, loaded with dlopen.
# packages: apache2-bin curl
# needs: apache2 curl
# pinned: /mod_mime\.so
# pinned: /mod_deflate\.so
# results: 5
modules=/usr/lib/apache2/modules
mkdir site logs
printf 'hello\n%0.s' 1 2 3 4 5 6 7 8 9 >site/index.html
{
    echo "ServerRoot $WORK
        ServerName localhost
        PidFile $WORK/pid
        ErrorLog $WORK/logs/error
        Listen 127.0.0.1:\${PORT}
        DocumentRoot $WORK/site"
    # Only one event loop can be loaded.
    for module in "$modules"/mod_mpm_event.so "$modules"/mod_authz_core.so "$modules"/mod_mime.so "$modules"/mod_dir.so \
        "$modules"/mod_deflate.so "$modules"/mod_filter.so "$modules"/mod_headers.so "$modules"/mod_rewrite.so \
        "$modules"/mod_status.so "$modules"/mod_alias.so "$modules"/mod_expires.so "$modules"/mod_setenvif.so; do
        name=${module##*/mod_}
        echo "LoadModule ${name%.so}_module $module"
    done
    echo "TypesConfig /etc/mime.types
        AddOutputFilterByType DEFLATE text/html
        Header set X-Test on
        RewriteEngine on
        RewriteRule ^/old /index.html"
} >config
PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export PORT
[ -e /etc/mime.types ] || { : >types; sed -i "s|/etc/mime.types|$WORK/types|" config; }
apache2 -f "$WORK/config" -t 2>&1 | tail -n 1
apache2 -f "$WORK/config" -k start
tries=0
until curl -s -o /dev/null "http://127.0.0.1:$PORT/"; do
    tries=$((tries + 1)) && [ $tries -lt 200 ]
    sleep 0.05
done
curl -s "http://127.0.0.1:$PORT/" | sha256sum
curl -s -H 'Accept-Encoding: gzip' -D - -o /dev/null "http://127.0.0.1:$PORT/old" | grep -i 'HTTP\|x-test\|encoding' | tr -d '\r'
for _ in 1 2 3 4 5 6 7 8 9 10; do curl -s "http://127.0.0.1:$PORT/"; done | wc -l
apache2 -f "$WORK/config" -k graceful
curl -s --retry 20 --retry-delay 1 --retry-all-errors "http://127.0.0.1:$PORT/" | sha256sum
kill "$(cat pid)"
while [ -e pid ]; do sleep 0.05; done
grep -c 'exit signal' logs/error || true
