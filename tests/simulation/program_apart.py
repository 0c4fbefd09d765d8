"""The app of simulated processes that have worker processes: two handlers more."""

from __future__ import annotations

from cabrank import App, Batch, Failure
from tests.simulation.floor import BATCH, QUEUE, TIMEOUT_S
from tests.simulation.plan import Order
from tests.simulation.program import app, retry

app_with_processes = App()
app_with_processes.handlers |= app.handlers
app_with_processes.queues |= app.queues


@app_with_processes.job(queue=QUEUE, kind="process", timeout_s=TIMEOUT_S, retry=retry)
def apart(order: Order) -> int | None:
    """Runs in a worker process: `child.py` has what it does there."""
    raise NotImplementedError(order)


@app_with_processes.job(queue=QUEUE, kind="process", timeout_s=TIMEOUT_S, retry=retry, batch=Batch(jobs=BATCH, wait_s=0.1))
def packed_apart(orders: list[Order]) -> list[Failure | None]:
    """As `apart`, all orders in one call."""
    raise NotImplementedError(orders)
