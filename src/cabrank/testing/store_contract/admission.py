# ruff: noqa: PLR2004, S101 -- tests are named as facts, their numbers are examples, and they assert
"""Admission: whole or not at all, within bounds, once for each key."""

from __future__ import annotations

import msgspec
import pytest

from cabrank.policy import Limit
from cabrank.settings import MIB
from cabrank.states import Cause, State
from cabrank.stores.contract import Submission, Verdict
from cabrank.testing.clock import FakeClock
from cabrank.testing.store_contract.opened import HANDLER, PLENTY, QUEUE, Open, Opened, OpenedContract, ids, submission, verdicts

PRUNED_S = 120.0  # within this a store has forgotten what it keeps no longer


class AdmissionContract(OpenedContract):
    """What `turn` promises about `new`."""

    async def test_an_admitted_job_waits(self, one: Opened) -> None:
        job = one.job(payload=b'{"a":1}', priority=3)
        turn = await one.turn(submission(job))
        assert verdicts(turn) == [Verdict.STORED]
        record = await one.find(job.id)
        assert (record.state, record.handler, record.queue, record.priority, record.run) == (State.WAITING, job.handler, QUEUE, 3, 0)
        tally = await one.tally()
        assert (tally.waiting, tally.waiting_bytes, tally.running) == (1, 7, 0)

    async def test_a_submission_is_admitted_whole_or_not_at_all(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=3)
        fits, does_not = one.jobs(2), one.jobs(2)
        turn = await one.turn(submission(*fits), submission(*does_not))
        assert verdicts(turn) == [Verdict.STORED, Verdict.FULL]
        assert (turn.admitted[1].queue, "of 3 jobs" in turn.admitted[1].bound) == (QUEUE, True)
        assert set(await one.store.find([job.id for job in fits + does_not])) == {job.id for job in fits}
        assert (await one.tally()).waiting == 2

    async def test_nobody_is_let_past_one_who_found_no_room(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=3)
        turn = await one.turn(submission(*one.jobs(2)), submission(*one.jobs(2)), submission(one.job()), submission(one.job(queue="free")))
        assert verdicts(turn) == [Verdict.STORED, Verdict.FULL, Verdict.FULL, Verdict.STORED]

    async def test_jobs_for_several_queues_are_refused_together(self, open_holder: Open) -> None:
        one = await open_holder(max_queue={"narrow": 1})
        await one.submit(one.job(queue="narrow"))
        turn = await one.turn(submission(one.job(queue="wide"), one.job(queue="narrow")))
        assert (turn.admitted[0].verdict, turn.admitted[0].queue) == (Verdict.FULL, "narrow")
        assert (await one.tally("wide")).waiting == 0

    async def test_a_queue_is_bounded_in_bytes(self, one: Opened) -> None:
        bound = one.store.capabilities.bound.bytes
        if bound > 256 * MIB:
            pytest.skip("this store takes too many bytes to try it")
        payload = b'"' + b"x" * (MIB - 2) + b'"'
        await one.submit(*one.jobs(bound // MIB, payload=payload))
        turn = await one.turn(submission(one.job()))
        assert (turn.admitted[0].verdict, turn.admitted[0].queue) == (Verdict.FULL, QUEUE)

    async def test_the_bytes_of_a_queue_can_be_bounded(self, open_holder: Open) -> None:
        one = await open_holder(max_queue_bytes={QUEUE: 5})
        turn = await one.turn(submission(one.job(payload=b"[1]")), submission(one.job(payload=b"[2]")), submission(one.job(queue="other")))
        assert verdicts(turn) == [Verdict.STORED, Verdict.FULL, Verdict.STORED]
        assert "3 of 5 bytes" in turn.admitted[1].bound

    @pytest.mark.parametrize("key", [None, "k"])
    async def test_a_queue_is_full_while_its_oldest_ready_job_has_waited_too_long(
        self, open_holder: Open, clock: FakeClock, key: str | None
    ) -> None:
        one = await open_holder(max_queue_age_s={QUEUE: 10.0}, limits={} if key is None else {HANDLER: Limit(running=5)})
        old, later = one.job(limit_key=key), one.job(limit_key=key, due_at=clock.now() + 60)
        await one.submit(old, later)
        await clock.advance(9)
        assert verdicts(await one.turn(submission(one.job(limit_key=key, priority=0)))) == [Verdict.STORED]
        await clock.advance(2)
        turn = await one.turn(submission(one.job(limit_key=key)), submission(one.job(queue="other")))
        assert verdicts(turn) == [Verdict.FULL, Verdict.STORED]
        assert "waited for 11.0 s, the bound is 10 s" in turn.admitted[0].bound
        assert len(await one.claim()) == 2
        assert verdicts(await one.turn(submission(one.job(limit_key=key)))) == [Verdict.STORED]

    async def test_a_job_that_waits_again_is_as_old_as_its_wait(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(max_queue_age_s=10.0)
        leases = await one.run(one.job())
        await clock.advance(60)
        await one.settle(leases, Cause.RELEASED)
        assert verdicts(await one.turn(submission(one.job()))) == [Verdict.STORED]
        await clock.advance(11)
        assert verdicts(await one.turn(submission(one.job()))) == [Verdict.FULL]

    @pytest.mark.parametrize(
        ("bounds", "words"),
        [
            ({"max_store": 3}, "3 of 3 jobs"),
            ({"max_store_bytes": 3}, "3 of 3 bytes"),
            ({"max_store_age_s": 5.0}, "6.0 s, the bound is 5 s"),
        ],
    )
    async def test_all_queues_together_can_be_bounded(
        self, open_holder: Open, clock: FakeClock, bounds: dict[str, float], words: str
    ) -> None:
        one = await open_holder(**bounds)
        await one.turn(submission(*one.jobs(2)), submission(one.job(queue="other")))
        await clock.advance(6)
        turn = await one.turn(submission(one.job(queue="third")))
        assert (verdicts(turn), turn.admitted[0].queue) == ([Verdict.FULL], "third")
        assert turn.admitted[0].bound.startswith("in the whole store ")
        assert words in turn.admitted[0].bound
        await one.claim()
        await one.claim(queue="other")
        assert verdicts(await one.turn(submission(one.job(queue="third")))) == [Verdict.STORED]

    @pytest.mark.parametrize("cause", [Cause.RETURNED, Cause.GAVE_UP])
    async def test_a_job_that_runs_takes_no_room(self, open_holder: Open, cause: Cause) -> None:
        one = await open_holder(max_queue=1)
        leases = await one.run(one.job())
        assert len(leases) == 1
        assert verdicts(await one.turn(submission(one.job()))) == [Verdict.STORED]
        await one.settle(leases, cause)
        assert verdicts(await one.turn(submission(one.job()))) == [Verdict.FULL]

    async def test_a_job_that_waits_again_takes_its_room_even_beyond_the_bound(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=1)
        leases = await one.run(one.job(payload=b"[1,2]"))
        await one.submit(one.job())
        await one.settle(leases, Cause.RELEASED)
        tally = await one.tally()
        assert (tally.waiting, tally.waiting_bytes) == (2, 6)

    async def test_room_is_judged_at_once_by_stores_that_can(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=2)
        room = one.store.room(QUEUE)
        assert (room is not None) is one.store.capabilities.judges_room
        if room is not None:
            assert room.take(2, 2)
            assert not room.take(1, 1)
            assert one.store.room(QUEUE) is room
            turn = await one.turn(Submission(jobs=one.jobs(2), has_room=True), submission(one.job()))
            assert verdicts(turn) == [Verdict.STORED, Verdict.FULL]

    async def test_the_same_key_with_the_same_body_stores_nothing_new(self, one: Opened) -> None:
        first, again, third = one.jobs(3), one.jobs(3), one.jobs(3)
        turn = await one.turn(submission(*first, key="k", digest=b"body"), submission(*again, key="k", digest=b"body"))
        later = await one.turn(submission(*third, key="k", digest=b"body"))
        assert turn.admitted[0].verdict is Verdict.STORED
        for repeated in (turn.admitted[1], later.admitted[0]):
            assert (repeated.verdict, repeated.first_id, repeated.count) == (Verdict.REPEATED, first[0].id, 3)
        assert (await one.tally()).waiting == 3

    async def test_a_key_is_remembered_when_its_jobs_are_done(self, one: Opened) -> None:
        job = one.job()
        turn = await one.turn(submission(job, key="k", digest=b"body"), want=PLENTY)
        await one.settle(turn.leases, Cause.RETURNED)
        repeated = (await one.turn(submission(one.job(), key="k", digest=b"body"))).admitted[0]
        assert (repeated.verdict, repeated.first_id) == (Verdict.REPEATED, job.id)

    async def test_the_same_key_with_another_body_is_refused(self, one: Opened) -> None:
        await one.turn(submission(one.job(), key="k", digest=b"body"))
        assert verdicts(await one.turn(submission(one.job(), key="k", digest=b"other"))) == [Verdict.KEY_REUSED]
        assert (await one.tally()).waiting == 1

    async def test_a_refused_submission_leaves_its_key_free(self, open_holder: Open) -> None:
        one = await open_holder(max_queue=1)
        await one.submit(one.job())
        assert verdicts(await one.turn(submission(one.job(), key="k", digest=b"body"))) == [Verdict.FULL]
        await one.claim()
        assert verdicts(await one.turn(submission(one.job(), key="k", digest=b"body"))) == [Verdict.STORED]

    async def test_a_repeated_submission_needs_no_room(self, open_holder: Open) -> None:
        """A client that lost the reply must learn its ids, also while the queue is full."""
        one = await open_holder(max_queue=1)
        await one.turn(submission(one.job(), key="k", digest=b"body"))
        turn = await one.turn(submission(one.job()), submission(one.job(), key="k", digest=b"body"))
        assert verdicts(turn) == [Verdict.FULL, Verdict.REPEATED]

    async def test_a_key_is_forgotten_after_its_time(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(receipts_s=100.0)
        await one.turn(submission(one.job(), key="k", digest=b"body"))
        await clock.advance(101)
        assert verdicts(await one.turn(submission(one.job(), key="k", digest=b"other"))) == [Verdict.STORED]

    async def test_the_oldest_keys_are_forgotten_first(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(receipts=2)
        for key in "abc":
            await one.turn(submission(one.job(), key=key, digest=b"body"))
            await clock.advance(1)
        await clock.advance(PRUNED_S)
        await one.turn()
        turn = await one.turn(*(submission(one.job(), key=key, digest=b"body") for key in "cba"))
        assert verdicts(turn) == [Verdict.REPEATED, Verdict.REPEATED, Verdict.STORED]

    async def test_many_requests_of_many_shapes_go_in_one_turn(self, one: Opened) -> None:
        shapes = [(queue, priority, due_at) for queue in ("a", "b") for priority in (0, 5) for due_at in (0.0, 9e9)] * 5
        jobs = [one.job(queue=queue, priority=priority, due_at=due_at) for queue, priority, due_at in shapes]
        turn = await one.turn(*(submission(job) for job in reversed(jobs)), want={"a": PLENTY})
        assert set(verdicts(turn)) == {Verdict.STORED}
        assert sorted(ids(turn.leases)) == [job.id for job in jobs if job.queue == "a" and not job.due_at]
        assert {queue: counted.waiting for queue, counted in (await one.store.tally()).items()} == {"a": 10, "b": 20}

    @pytest.mark.parametrize("payload", [b"1", b'{"a": [1,  2]}', '"é€🚕"'.encode(), b'"\\u00e9\\u0000"', b" [1]\n", b"1" * 40, b"null"])
    @pytest.mark.parametrize("fresh", [True, False])
    async def test_a_payload_comes_back_and_its_bytes_are_counted(self, one: Opened, payload: bytes, *, fresh: bool) -> None:
        job = one.job(payload=payload)
        if fresh:
            [lease] = await one.run(job)
        else:
            await one.submit(job)
            assert (await one.tally()).waiting_bytes == len(payload)
            [lease] = await one.claim()
        assert msgspec.json.decode(lease.job.payload) == msgspec.json.decode(payload)
        assert (await one.tally()).waiting_bytes == 0
        await one.settle([lease], Cause.RELEASED)
        assert (await one.tally()).waiting_bytes == len(payload)
