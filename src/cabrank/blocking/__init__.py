"""Dispatcher and Intake for programs without an event loop: scripts, Flask, Django. Any thread may call them.

Each has an event loop in a thread of its own. What is not entered with `with` opens by itself at its first use, in each process
anew, and closes when the process exits: so one object at the top of a module serves every worker of a forking server.
"""

from cabrank.blocking.completed import as_completed
from cabrank.blocking.dispatcher import Dispatcher
from cabrank.blocking.handle import JobHandle, JobHandles
from cabrank.blocking.intake import Intake
from cabrank.blocking.results import Mapped, Results

__all__ = ["Dispatcher", "Intake", "JobHandle", "JobHandles", "Mapped", "Results", "as_completed"]
