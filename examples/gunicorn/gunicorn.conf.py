"""A configuration of gunicorn. Nothing in it is specific to sopin.

The library must be in the environment with which gunicorn is *started*; a setting in
this file would be too late:

    LD_PRELOAD=/usr/local/lib/libsopin.so gunicorn -c gunicorn.conf.py app:app

or in a systemd unit:

    Environment=LD_PRELOAD=/usr/local/lib/libsopin.so
    CacheDirectory=myapp
"""

import os

bind = os.environ.get("DEMO_BIND", "127.0.0.1:8000")
workers = int(os.environ.get("DEMO_WORKERS", "4"))
threads = int(os.environ.get("DEMO_THREADS", "1"))
worker_class = "gthread" if threads > 1 else "sync"
# The master kills a worker that hangs, and the comparison counts it as killed.
timeout = 30
graceful_timeout = 2
# From this log, the comparison reads which workers were started, and which signals
# ended them.
loglevel = "info"
