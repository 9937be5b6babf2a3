# nginx with dynamic modules.
# packages: nginx-light libnginx-mod-http-echo libnginx-mod-http-headers-more-filter libnginx-mod-stream curl
# needs: nginx curl /usr/lib/nginx/modules/ngx_http_echo_module.so
# needs: /usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so /usr/lib/nginx/modules/ngx_stream_module.so
# pinned: /ngx_http_echo_module\.so
# pinned: /ngx_http_headers_more_filter_module\.so
# pinned: /ngx_stream_module\.so
# results: 15
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
port=$(free_port)
stream=$(free_port)
cat >config <<C
load_module /usr/lib/nginx/modules/ngx_http_echo_module.so;
load_module /usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
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
    more_set_headers "X-More: filtered" "Server: none";
    gzip on;
    gzip_types text/plain;
    gzip_min_length 1;
    server {
        listen 127.0.0.1:$port;
        location / { default_type text/plain; echo "method \$echo_request_method"; echo_duplicate 20 "x"; }
    }
}
stream {
    server {
        listen 127.0.0.1:$stream;
        proxy_pass 127.0.0.1:$port;
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
curl -s --compressed -D - "http://127.0.0.1:$port/" | grep -i 'HTTP\|encoding\|^method\|x-more\|server' | tr -d '\r'
curl -s -D - "http://127.0.0.1:$stream/" | grep -v -i '^date' | tr -d '\r'
kill -HUP "$(cat pid)"
for _ in 1 2 3 4 5 6 7 8 9 10; do curl -s "http://127.0.0.1:$port/"; done | grep -c method
kill "$(cat pid)"
while [ -e pid ]; do sleep 0.05; done
grep -c 'exited on signal' error.log || true
