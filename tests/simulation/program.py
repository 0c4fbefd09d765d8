"""The app that every simulated process runs: jobs that do what their order says, and tell the world when they start and end."""

from __future__ import annotations

import asyncio

from cabrank import App, Batch, Failure, JobContext, Limit, Retry, context
from tests.simulation.acts import alone, said_of
from tests.simulation.floor import BATCH, TIMEOUT_S
from tests.simulation.loop import LIFE
from tests.simulation.plan import Act, Order
from tests.simulation.process import Process

ATTEMPTS = 3
LIMIT = Limit(running=2, per_s=5, burst=3, key=lambda order: order.customer)

app = App()
retry = Retry(attempts=ATTEMPTS, base_s=0.2, factor=2.0, cap_s=0.5)


@app.job(queue="work", timeout_s=TIMEOUT_S, retry=retry)
async def work(order: Order, *, job: JobContext = context()) -> int:
    """Do what the order says for this attempt."""
    return await _work(order, job)


@app.job(queue="work", timeout_s=TIMEOUT_S, retry=retry, limit=LIMIT)
async def limited(order: Order, *, job: JobContext = context()) -> int:
    """The same, as far as the limit lets it."""
    return await _work(order, job)


async def _work(order: Order, job: JobContext) -> int:
    process = _process()
    act = order.acts[min(job.attempt, len(order.acts)) - 1]
    with process.runs("work", job):
        if order.run_s:
            await asyncio.sleep(order.run_s)
        await _perform(process, act, order, job)
    process.returned(job)
    return job.run


@app.job(queue="packs", timeout_s=TIMEOUT_S, retry=retry, batch=Batch(jobs=BATCH, wait_s=0.1))
async def packed(orders: list[Order], *, job: JobContext = context()) -> list[Failure | None]:
    """Do what each order says, all of them in one call."""
    process = _process()
    with process.runs_together("packs", job) as leases:
        await asyncio.sleep(max(order.run_s for order in orders))
        acts = [order.acts[min(lease.failures, len(order.acts) - 1)] for order, lease in zip(orders, leases, strict=True)]
        for act, order in zip(acts, orders, strict=True):
            if act in {Act.HANG, Act.EXIT}:
                await _perform(process, act, order, job)
        said = [said_of(act, order, lease.run) for act, order, lease in zip(acts, orders, leases, strict=True)]
    for lease, failure in zip(leases, said, strict=True):
        if failure is None:
            process.returned_one(lease.job.id, lease.run)
    return said


@app.job(queue="children", timeout_s=TIMEOUT_S, retry=retry)
async def child(order: Order, *, job: JobContext = context()) -> int:
    """Return at once."""
    process = _process()
    with process.runs("children", job):
        pass
    process.returned(job)
    return job.run


def _process() -> Process:
    life = LIFE.get()
    assert isinstance(life, Process.Life)
    return life.process


async def _perform(process: Process, act: Act, order: Order, job: JobContext) -> None:
    match act:
        case Act.EXIT:
            raise SystemExit(1)
        case Act.HANG:
            await asyncio.get_running_loop().create_future()
        case Act.CHILDREN:
            token = f"{order.token}.child"
            handle = await process.dispatcher.submit(child, Order(token, (Act.RETURN,), 0.0), key=token)
            process.record.acknowledged(token, handle.number)
        case _:
            alone(act, order, job.run)
