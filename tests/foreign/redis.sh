# Redis, which writes its snapshots in a forked child while it continues to serve.
# packages: redis-server redis-tools
# needs: redis-server redis-cli
# pinned: /redis-(server|check-rdb)
# results: 6
socket=$WORK/socket
redis-server --port 0 --unixsocket "$socket" --dir "$WORK" --save '' --appendonly no >out 2>&1 &
server=$!
trap 'kill $server' EXIT
redis() { redis-cli -s "$socket" "$@"; }
tries=0
until [ "$(redis ping 2>/dev/null)" = PONG ]; do
    tries=$((tries + 1)) && [ $tries -lt 200 ]
    sleep 0.05
done
redis eval 'for i = 1, 100000 do redis.call("set", "key" .. i, i * i) end return redis.call("dbsize")' 0
for _ in 1 2 3; do
    redis bgsave >/dev/null
    redis eval 'for i = 1, 20000 do redis.call("incr", "key" .. i) end return "round"' 0
    while [ "$(redis info persistence | tr -d '\r' | sed -n 's/^rdb_bgsave_in_progress://p')" = 1 ]; do sleep 0.05; done
    redis info persistence | tr -d '\r' | grep '^rdb_last_bgsave_status'
done
redis get key20000
trap - EXIT
redis shutdown nosave || true
wait $server && echo ended
redis-check-rdb dump.rdb | grep -c 'RDB looks OK'
grep -ci 'crashed\|bug report' out || true
