"""A scheduler that runs its jobs in a process which it forks, as Airflow does:

    sopin run -- python scheduler.py
"""

from apscheduler.executors.pool import ProcessPoolExecutor
from apscheduler.schedulers.blocking import BlockingScheduler

from service import answer


def job():
    print(answer(), flush=True)


if __name__ == "__main__":
    scheduler = BlockingScheduler(executors={"default": ProcessPoolExecutor(1)})
    scheduler.add_job(job, "interval", seconds=0.05)
    scheduler.start()
