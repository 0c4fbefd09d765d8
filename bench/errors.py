"""What can end a measurement early.

BenchError
├── ToolMissing      nothing was measured: a program or a system that the measurement needs is not there
├── ServerFailed     a server did not start, did not answer as it must, or did not stop in order
└── RoundNotClean    figures were taken but do not count: a request was refused, or an acknowledged job is not done
"""


class BenchError(Exception):
    """The measurement cannot go on; the message says what to do."""


class ToolMissing(BenchError):
    """A program or a system that the measurement needs is not there. Safe to run again once it is."""


class ServerFailed(BenchError):
    """A server did not start, did not answer as it must, or did not stop in order."""


class RoundNotClean(BenchError):
    """Figures were taken that do not count, since a request was refused or an acknowledged job was not done."""
