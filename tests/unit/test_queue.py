from __future__ import annotations

from cabrank.job import Job, Lease
from cabrank.queue import RESERVATION, JobQueue


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
