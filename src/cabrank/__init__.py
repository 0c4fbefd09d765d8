"""cabrank takes on bursts of work, acknowledges at once, and lets a bounded pool of workers do it, losing nothing."""

from cabrank.app import App
from cabrank.batch import Batch, Failure
from cabrank.dead import DeadJob
from cabrank.dispatcher import Dispatcher
from cabrank.errors import (
    CabrankError,
    DiskFull,
    DispatcherFailed,
    IntakeClosed,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobHeld,
    KeyReused,
    NeverFits,
    NotEntered,
    PayloadInvalid,
    PayloadMalformed,
    PayloadTooLarge,
    QueueFull,
    Refused,
    RegistrationError,
    ResourceFailed,
    ResultGone,
    SettingError,
    StoreError,
    StoreUnavailable,
    StoreUnusable,
    UnknownHandler,
    UnknownJob,
    Unsuccessful,
    UsageError,
    UsedAfterFork,
    WaitsForItself,
    WorkerLost,
    WrongAnswer,
)
from cabrank.executor import DispatcherExecutor
from cabrank.handle import JobHandle
from cabrank.handler import BatchHandler, Handler, Jobs, isolated
from cabrank.inject import JobContext, context, resource
from cabrank.intake import Intake
from cabrank.job import Progress
from cabrank.policy import GiveUp, Limit, Retry, Snooze, TryAgain
from cabrank.results import Mapped, Results, as_completed
from cabrank.settings import Settings
from cabrank.states import State
from cabrank.timeline import Happened, Happening

__version__ = "0.1.0"

__all__ = [
    "App",
    "Batch",
    "BatchHandler",
    "CabrankError",
    "DeadJob",
    "DiskFull",
    "Dispatcher",
    "DispatcherExecutor",
    "DispatcherFailed",
    "Failure",
    "GiveUp",
    "Handler",
    "Happened",
    "Happening",
    "Intake",
    "IntakeClosed",
    "JobCancelled",
    "JobContext",
    "JobExpired",
    "JobFailed",
    "JobHandle",
    "JobHeld",
    "Jobs",
    "KeyReused",
    "Limit",
    "Mapped",
    "NeverFits",
    "NotEntered",
    "PayloadInvalid",
    "PayloadMalformed",
    "PayloadTooLarge",
    "Progress",
    "QueueFull",
    "Refused",
    "RegistrationError",
    "ResourceFailed",
    "ResultGone",
    "Results",
    "Retry",
    "SettingError",
    "Settings",
    "Snooze",
    "State",
    "StoreError",
    "StoreUnavailable",
    "StoreUnusable",
    "TryAgain",
    "UnknownHandler",
    "UnknownJob",
    "Unsuccessful",
    "UsageError",
    "UsedAfterFork",
    "WaitsForItself",
    "WorkerLost",
    "WrongAnswer",
    "as_completed",
    "context",
    "isolated",
    "resource",
]
