# chronyd with its seccomp filter, which kills, without a network.
# packages: chrony
# needs: chronyd chronyc
# needs-success: [ "$(id -u)" = 0 ]
# pinned: /chronyd
# pinned: /libseccomp\.so
# results: 8
mkdir -m 0750 run
cat >config <<C
local stratum 8
cmdport 0
port 0
bindcmdaddress $WORK/run/socket
pidfile $WORK/run/pid
user root
C
for level in 1 2; do
    chronyd -F $level -d -x -f "$WORK/config" >out 2>&1 &
    chronyd=$!
    ask() { chronyc -h "$WORK/run/socket" "$@" 2>&1 || true; }
    tries=0
    until ask tracking | grep -q '^Stratum'; do
        tries=$((tries + 1))
        if [ $tries -gt 200 ] || ! kill -0 $chronyd 2>/dev/null; then break; fi
        sleep 0.05
    done
    ask tracking | grep '^Stratum\|^Leap'
    ask activity | grep online
    ask add server 192.0.2.1
    # This makes chronyd use the resolver, in a thread.
    ask add server nothing.invalid
    ask burst 1/2
    ask rekey
    ask shutdown
    wait $chronyd && echo ended || echo "ended with $?"
    grep -o 'Loaded seccomp filter.*' out
done
