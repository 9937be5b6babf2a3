# Allocators in LD_PRELOAD, before the library and after it. Code everywhere calls them,
# also while objects are being loaded, and jemalloc starts a thread of its own.
# packages: libjemalloc2 libtcmalloc-minimal4 libmimalloc2.0 python3
# needs: python3 /usr/lib/x86_64-linux-gnu/libjemalloc.so.2
# needs: /usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4 /usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0
# pinned: /libjemalloc\.so
# pinned: /libtcmalloc_minimal\.so
# pinned: /libmimalloc\.so
# results: 12
cat >work.py <<'C'
import ctypes, hashlib, json, os, sqlite3, subprocess, threading, zlib
def use(results, index):
    data = [bytes(i % 251 for i in range(n)) for n in range(0, 4000, 7)]
    results[index] = hashlib.sha256(b"".join(zlib.compress(d) for d in data)).hexdigest()[:16]
results = [None] * 4
threads = [threading.Thread(target=use, args=(results, i)) for i in range(4)]
[t.start() for t in threads]
for name in ("libm.so.6", "libz.so.1", "libsqlite3.so.0"):
    try:
        ctypes.CDLL(name)
    except OSError:
        pass
[t.join() for t in threads]
database = sqlite3.connect(":memory:")
database.execute("create table t(x)")
database.executemany("insert into t values (?)", [(i,) for i in range(20000)])
pid = os.fork()
if pid == 0:
    os._exit(7)
print(set(results), database.execute("select sum(x) from t").fetchone(), os.waitpid(pid, 0)[1],
      subprocess.run(["/bin/echo", "child"], capture_output=True).stdout)
C
ours=${LD_PRELOAD:-}
for allocator in libjemalloc.so.2 libtcmalloc_minimal.so.4 libmimalloc.so.2.0; do
    path=/usr/lib/x86_64-linux-gnu/$allocator
    for list in "$path${ours:+:$ours}" "${ours:+$ours:}$path"; do
        echo "$allocator: $(LD_PRELOAD="$list" MALLOC_CONF=background_thread:true python3 work.py)"
        echo "$allocator, isolated: $(LD_PRELOAD="$list" python3 -I -c 'import ssl, decimal, ctypes; print(decimal.Decimal(2).sqrt())')"
    done
done
