"""Configuration of gunicorn; nothing in it is special to sopin.

The library must be in the environment that gunicorn is *started* with; a
setting in this file would come too late for it:

    LD_PRELOAD=/usr/local/lib/libsopin.so gunicorn -c gunicorn.conf.py app:app

or in a systemd unit:

    Environment=LD_PRELOAD=/usr/local/lib/libsopin.so
    CacheDirectory=myapp
"""

import os

bind = os.environ.get("DEMO_BIND", "127.0.0.1:8000")
workers = int(os.environ.get("DEMO_WORKERS", "4"))
worker_class = "sync"
# A worker that hangs is killed by the master, and counted as killed.
timeout = 30
graceful_timeout = 2
# The comparison reads from this log which workers were started, and what they
# died of.
loglevel = "info"
