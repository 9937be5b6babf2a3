"""A worker of Celery, which forks processes for its tasks:

    sopin run -- celery -A tasks worker --concurrency 2

The queue is a directory, so that this needs no server.
"""

import os

from celery import Celery

from service import answer

QUEUE = os.environ.get("QUEUE", "/tmp/sopin-tasks")
for name in ("messages", "control"):
    os.makedirs(os.path.join(QUEUE, name), exist_ok=True)

app = Celery("tasks", broker="filesystem://", backend=f"file://{QUEUE}")
app.conf.broker_transport_options = {
    "data_folder_in": f"{QUEUE}/messages",
    "data_folder_out": f"{QUEUE}/messages",
    "control_folder": f"{QUEUE}/control",
    "polling_interval": 0.02,
}


@app.task
def answer_task():
    return answer()
