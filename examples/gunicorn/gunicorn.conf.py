"""Configuration of gunicorn; the part to copy is the comment.

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
# A worker that is killed must show as a failed request, not as a slow one.
timeout = 30
graceful_timeout = 2
loglevel = "info"
