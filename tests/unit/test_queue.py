from __future__ import annotations

import pytest

import cabrank
from cabrank.job import Job, Lease
from cabrank.queue import RESERVATION, JobQueue, Line
from cabrank.testing import FakeClock


def lease(id: int, run: int = 1) -> Lease:
    return Lease(Job(id=id, handler="work", queue="q", payload=b"1"), run)


def test_leases_wait_in_the_order_in_which_they_came() -> None:
    queue = JobQueue("q", reserve_s=0.05)
    queue.extend([lease(1), lease(2)])
    queue.extend([lease(3)])
    assert len(queue) == 3
    assert [waiting.job.id for waiting in queue.clear()] == [1, 2, 3]
    assert not queue


def test_one_run_of_a_job_can_be_taken_out() -> None:
    queue = JobQueue("q", reserve_s=0.05)
    queue.extend([lease(1), lease(2, run=3)])
    assert queue.remove((2, 1)) is None
    removed = queue.remove((2, 3))
    assert removed is not None
    assert removed.job.id == 2
    assert queue.remove((2, 3)) is None
    assert len(queue) == 1


def test_nothing_is_reserved_before_a_run_was_measured() -> None:
    want = JobQueue("q", reserve_s=0.05).want(idle=3, workers=10, alone=False)
    assert (want.jobs, want.idle) == (3, 3)


def test_what_starts_within_the_reservation_time_is_reserved() -> None:
    queue = JobQueue("q", reserve_s=0.05)
    queue.measured(10, 0.1)  # 10 ms each: each of ten workers starts five in 50 ms
    assert queue.want(idle=0, workers=10, alone=False).jobs == 50
    queue.extend([lease(id) for id in range(20)])
    want = queue.want(idle=2, workers=10, alone=True)
    assert (want.jobs, want.idle, want.alone) == (32, 0, True), "what waits here already is taken off"


def test_a_few_are_not_claimed_while_half_of_the_reservation_waits() -> None:
    queue = JobQueue("q", reserve_s=0.05)
    queue.measured(10, 0.1)
    queue.extend([lease(id) for id in range(26)])
    assert queue.want(idle=0, workers=10, alone=False).jobs == 0
    assert queue.want(idle=30, workers=10, alone=False).jobs == 54, "there are workers for more than waits"
    queue.clear()
    queue.extend([lease(id) for id in range(25)])
    assert queue.want(idle=0, workers=10, alone=False).jobs == 25


def test_long_jobs_are_not_reserved_and_short_ones_within_a_bound() -> None:
    slow, fast, none = JobQueue("q", reserve_s=0.05), JobQueue("q", reserve_s=0.05), JobQueue("q", reserve_s=0.0)
    slow.measured(1, 30.0)
    fast.measured(1_000, 0.0)
    none.measured(1_000, 0.001)
    assert slow.want(idle=1, workers=10, alone=False).jobs == 1
    assert fast.want(idle=1, workers=10, alone=False).jobs == 1 + RESERVATION
    assert none.want(idle=1, workers=10, alone=False).jobs == 1


def test_the_run_time_follows_new_measurements() -> None:
    queue = JobQueue("q", reserve_s=1.0)
    queue.measured(1, 0.1)
    for _ in range(50):
        queue.measured(0, 0.0)
        queue.measured(1, 1.0)
    assert queue.want(idle=0, workers=10, alone=False).jobs == 10


async def pack(items: list[int]) -> None: ...


def batched(max_crashes: int | None = None) -> Line:
    handler = cabrank.App().job(batch=cabrank.Batch(jobs=3, wait_s=1), name="pack", queue="q", max_crashes=max_crashes)(pack)
    return Line(handler, cabrank.Batch(jobs=3, wait_s=1), max_crashes=3, monotonic=FakeClock().monotonic)


def of_pack(id: int, crashes: int = 0) -> Lease:
    return Lease(Job(id=id, handler="pack", queue="q", payload=b"1"), 1, crashes=crashes)


def ids(leases: list[Lease]) -> list[int]:
    return [lease.job.id for lease in leases]


def test_jobs_of_a_batch_handler_stand_in_one_place() -> None:
    line = batched()
    queue = JobQueue("q", reserve_s=0, lines=[line], mixed=True)
    queue.extend([lease(1), of_pack(2), lease(3), of_pack(4), of_pack(5), of_pack(6)])
    assert len(queue) == 6
    assert queue.take().job.id == 1
    assert queue.head is line
    assert ids(queue.take_batch()) == [2, 4, 5]
    assert queue.take().job.id == 3
    assert ids(queue.take_batch()) == [6]
    assert len(queue) == 0
    assert not queue


def test_what_a_worker_looks_after_is_counted_and_can_be_taken_out() -> None:
    line = batched()
    queue = JobQueue("q", reserve_s=0, lines=[line])
    queue.extend([of_pack(1), of_pack(2)])
    assert queue.take_line() is line
    assert not queue, "nobody else begins with it"
    assert len(queue) == 2
    removed = queue.remove((1, 1))
    assert removed is not None
    assert removed.job.id == 1
    queue.put_back(line)
    assert ids(queue.clear()) == [2]
    assert len(queue) == 0


@pytest.mark.parametrize(("max_crashes", "alone"), [(None, 2), (2, 1), (9, 2)])
def test_a_job_that_may_be_the_cause_of_crashes_is_a_batch_of_one(max_crashes: int | None, alone: int) -> None:
    queue = JobQueue("q", reserve_s=0, lines=[batched(max_crashes)])
    queue.extend([of_pack(1), of_pack(2, crashes=alone), of_pack(3, crashes=alone - 1)])
    assert len(queue) == 3
    assert ids(queue.take_batch()) == [1, 3]
    assert queue.remove((2, 1)) is not None
    assert len(queue) == 0
    queue.extend([of_pack(2, crashes=alone), of_pack(4)])
    assert ids(queue.take_batch()) == [2]
    assert ids(queue.take_batch()) == [4]


def test_a_batch_is_wanted_for_each_idle_worker() -> None:
    queue = JobQueue("q", reserve_s=0, lines=[batched()])
    want = queue.want(idle=4, workers=4, alone=False)
    assert (want.jobs, want.idle) == (12, 12)
    mixed = JobQueue("q", reserve_s=0, lines=[batched()], mixed=True)
    assert mixed.want(idle=4, workers=4, alone=False).jobs == 4
    mixed.extend([of_pack(1)])
    assert mixed.wants_more
    assert mixed.want(idle=4, workers=4, alone=False).jobs == 11
