# ruff: noqa: PLR2004, S101 -- tests are named as facts, their numbers are examples, and they assert
"""Turns: whose job is next where keys have limits; and what happens when a limit comes or goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from cabrank.job import Job, Lease, Settlement
from cabrank.policy import Limit
from cabrank.settings import MIB
from cabrank.states import Cause
from cabrank.stores.contract import SUSPECT_CRASHES, Want
from cabrank.testing.clock import FakeClock
from cabrank.testing.store_contract.limits import of_keys
from cabrank.testing.store_contract.opened import HANDLER, PLENTY, Open, OpenedContract, ids, needs_sharing, submission


def keys_of(jobs: Sequence[Job], leases: Sequence[Lease]) -> str:
    """The keys of what was leased, in order."""
    by_id = {job.id: job.limit_key or "-" for job in jobs}
    return "".join(by_id[id] for id in ids(leases))


class TurnContract(OpenedContract):
    """What a limit promises about keys beside each other."""

    async def test_each_key_has_an_allowance_of_its_own(self, open_holder: Open) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=1)})
        jobs = of_keys(one, "aaabbc")
        await one.submit(*jobs)
        assert keys_of(jobs, await one.claim()) == "abc"

    async def test_each_handler_has_allowances_of_its_own(self, open_holder: Open) -> None:
        one = await open_holder(handlers=[HANDLER, "more"], limits={HANDLER: Limit(running=1), "more": Limit(running=2)})
        jobs = [*of_keys(one, "aaa"), *of_keys(one, "aaa", handler="more")]
        await one.submit(*jobs)
        assert Counter(lease.job.handler for lease in await one.claim()) == {HANDLER: 1, "more": 2}

    @pytest.mark.parametrize("want", [1, 2, 3, 4])
    async def test_keys_take_turns_however_much_one_has_waiting(self, open_holder: Open, want: int) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=100)})
        jobs = of_keys(one, "a" * 30 + "bbb" + "ccc")
        await one.submit(*jobs)
        claimed: list[Lease] = []
        while len(claimed) < 9:
            claimed += await one.claim(min(want, 9 - len(claimed)))
        assert keys_of(jobs, claimed) == "abcabcabc"

    async def test_a_key_that_comes_anew_stands_behind_those_that_wait(self, open_holder: Open) -> None:
        """Or a crowd of new keys would starve the old ones."""
        one = await open_holder(limits={HANDLER: Limit(running=100)})
        jobs = of_keys(one, "aaabbb")
        await one.submit(*jobs)
        assert keys_of(jobs, await one.claim(1)) == "a"
        new = of_keys(one, "xyz")
        await one.submit(*new)
        assert keys_of([*jobs, *new], await one.claim(5)) == "baxyz"

    async def test_what_one_key_leaves_others_may_take(self, open_holder: Open) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=100)})
        jobs = of_keys(one, "b" + "a" * 20)
        await one.submit(*jobs)
        assert keys_of(jobs, await one.claim(10)) == "baaaaaaaaa"

    async def test_within_a_key_priority_goes_first_then_the_moment_of_getting_ready(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=100)})
        late, soon = (one.job(limit_key="a", due_at=clock.now() + seconds) for seconds in (2, 1))
        plain, urgent, last = (one.job(limit_key="a", priority=priority) for priority in (5, 0, 9))
        await one.submit(late, soon, plain, urgent, last)
        await clock.advance(3)
        assert ids(await one.claim()) == [job.id for job in (urgent, plain, soon, late, last)]

    async def test_jobs_with_and_without_a_limit_meet_by_priority_and_moment(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(handlers=[HANDLER, "free"], limits={HANDLER: Limit(running=100)})
        made: list[Job] = []
        for handler, key, priority in (("free", None, 5), (HANDLER, "a", 5), ("free", None, 5), (HANDLER, "a", 9), ("free", None, 0)):
            made.append(one.job(handler=handler, limit_key=key, priority=priority))
            await one.submit(made[-1])
            await clock.advance(1)
        assert ids(await one.claim()) == [made[place].id for place in (4, 0, 1, 2, 3)]

    async def test_a_new_job_without_a_limit_does_not_overtake_one_that_may_start(self, open_holder: Open) -> None:
        one = await open_holder(handlers=[HANDLER, "free"], limits={HANDLER: Limit(running=1)})
        limited, free, more = one.job(limit_key="a"), one.job(handler="free"), one.job(handler="free")
        await one.submit(limited)
        turn = await one.turn(submission(free), want=Want(jobs=1, bytes=MIB, idle=1))
        assert ids(turn.leases) == [limited.id]
        turn = await one.turn(submission(more), want=Want(jobs=2, bytes=MIB, idle=2))
        assert ids(turn.leases) == [free.id, more.id]

    async def test_many_keys_all_come_in_their_turn(self, open_holder: Open) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=1)})
        jobs = [one.job(limit_key=f"k{number % 500}") for number in range(2_000)]
        await one.submit(*jobs)
        rounds = 0
        leases = await one.claim(500)
        while leases:
            rounds += 1
            assert len({jobs[lease.job.id - jobs[0].id].limit_key for lease in leases}) == 500
            turn = await one.turn(settlements=[Settlement(lease.job.id, 1, Cause.RETURNED) for lease in leases], want=PLENTY)
            leases = list(turn.leases)
        assert rounds == 4

    # --------------------------------------------------------------------------------------------------------- changes

    async def test_jobs_that_came_before_the_limit_are_limited_too(self, open_holder: Open) -> None:
        one = await open_holder()
        needs_sharing(one)
        await one.submit(*one.jobs(5), one.job(handler="strange"))
        await one.close()
        other = await open_holder(limits={HANDLER: Limit(running=2)})
        assert len(await other.claim()) == 2
        assert await other.claim() == []

    async def test_jobs_that_came_before_the_limit_was_lifted_run(self, open_holder: Open) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=1)})
        needs_sharing(one)
        await one.submit(*of_keys(one, "aaabbb"))
        assert len(await one.claim()) == 2
        await one.close()
        other = await open_holder()
        assert len(await other.claim()) == 6

    async def test_jobs_of_a_limited_handler_that_was_not_named_stay(self, open_holder: Open) -> None:
        one = await open_holder(handlers=["other"], limits={"other": Limit(running=1)})
        await one.submit(*of_keys(one, "aa"))
        assert await one.claim() == []

    async def test_a_suspect_in_a_line_waits_until_it_can_run_alone(self, open_holder: Open) -> None:
        limits = {HANDLER: Limit(running=5)}
        one = await open_holder(limits=limits)
        needs_sharing(one)
        [suspect] = of_keys(one, "a")
        await one.submit(suspect)
        for _ in range(SUSPECT_CRASHES):
            victim = await open_holder(limits=limits, max_crashes=9)
            assert ids(await victim.claim(1, alone=True)) == [suspect.id]
            await victim.kill()
        survivor = await open_holder(limits=limits, max_crashes=9)
        behind = of_keys(survivor, "ab")
        await survivor.submit(*behind)
        turn = await survivor.turn(want=PLENTY)
        assert turn.suspect
        assert suspect.id not in ids(turn.leases)
        assert ids(await survivor.claim(9, alone=True)) == [suspect.id]
        assert {*ids(turn.leases), *ids(await survivor.claim())} == {job.id for job in behind}

    # ------------------------------------------------------------------------------------------------------------- why

    async def test_it_says_how_a_waiting_job_stands_to_its_limit(self, open_holder: Open, clock: FakeClock) -> None:
        one = await open_holder(limits={HANDLER: Limit(running=2, per_s=2, burst=2)})
        jobs = of_keys(one, "aaab")
        await one.submit(*jobs)
        leases = await one.claim(3)
        standing = await one.store.standing(jobs[2].id)
        assert standing is not None
        assert (standing.handler, standing.key, standing.running, standing.limit.running, standing.limit.per_s) == (HANDLER, "a", 2, 2, 2)
        assert standing.next_s == pytest.approx(0.5)
        assert standing.why == f"limit on key 'a' of '{HANDLER}': 2 of 2 run, 2 a second may start, the next in 0.5 s"
        await one.settle(leases, Cause.RETURNED)
        await clock.advance(0.5)
        standing = await one.store.standing(jobs[2].id)
        assert standing is not None
        assert (standing.running, standing.next_s, standing.why) == (0, 0, "")

    async def test_a_job_that_waits_for_no_limit_has_no_standing(self, open_holder: Open) -> None:
        one = await open_holder(handlers=[HANDLER, "free"], limits={HANDLER: Limit(running=1)})
        free, limited = one.job(handler="free"), one.job(limit_key="")
        await one.submit(free, limited)
        assert await one.store.standing(free.id) is None
        standing = await one.store.standing(limited.id)
        assert standing is not None
        assert standing.key == ""
        await one.claim()
        assert await one.store.standing(limited.id) is None
        assert await one.store.standing(limited.id + 99) is None
