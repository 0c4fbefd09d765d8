"""The worker of `kind="process"`: a process of its own for each, so that whatever a job does to it costs that job alone.

`worker.py` is what the pool sees, `fleet.py`, `sent.py` and `link.py` this process's side of the processes, `near.py` the ends that it
holds, `keeper.py` the process that starts, kills and reaps them, `child.py` what runs in each of them, `wire.py` what goes between,
`place.py` how they find the handlers.
"""

from cabrank.workers.process.fleet import Fleet
from cabrank.workers.process.near import Keep, KeeperProcess
from cabrank.workers.process.worker import ProcessWorker

__all__ = ["Fleet", "Keep", "KeeperProcess", "ProcessWorker"]
