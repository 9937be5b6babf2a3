# nginx with dynamic modules.
# packages: nginx-light libnginx-mod-http-echo curl
# needs: nginx curl /usr/lib/nginx/modules/ngx_http_echo_module.so
# pinned: /ngx_http_echo_module\.so
# results: 4
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >config <<C
load_module /usr/lib/nginx/modules/ngx_http_echo_module.so;
pid $WORK/pid;
error_log $WORK/error.log;
worker_processes 2;
events {}
http {
    access_log off;
    client_body_temp_path $WORK/body;
    proxy_temp_path $WORK/proxy;
    fastcgi_temp_path $WORK/fastcgi;
    uwsgi_temp_path $WORK/uwsgi;
    scgi_temp_path $WORK/scgi;
    gzip on;
    gzip_types text/plain;
    gzip_min_length 1;
    server {
        listen 127.0.0.1:$port;
        location / { default_type text/plain; echo "method \$echo_request_method"; echo_duplicate 20 "x"; }
    }
}
C
nginx -e "$WORK/error.log" -c "$WORK/config"
tries=0
until curl -s -o /dev/null "http://127.0.0.1:$port/"; do
    tries=$((tries + 1)) && [ $tries -lt 200 ]
    sleep 0.05
done
curl -s "http://127.0.0.1:$port/"
echo
curl -s --compressed -D - "http://127.0.0.1:$port/" | grep -i 'HTTP\|encoding\|^method' | tr -d '\r'
kill -HUP "$(cat pid)"
for _ in 1 2 3 4 5 6 7 8 9 10; do curl -s "http://127.0.0.1:$port/"; done | grep -c method
kill "$(cat pid)"
while [ -e pid ]; do sleep 0.05; done
grep -c 'exited on signal' error.log || true
