"""From the outcome of a run to what is recorded of it: the decision, and the result or the error as they are kept."""

from __future__ import annotations

import traceback
from random import Random

from cabrank.app import AnyHandler
from cabrank.errors import PayloadInvalid
from cabrank.job import Lease, Settlement
from cabrank.policy import NO_RETRY, GiveUp, Outcome, Raised, Returned, TimedOut, Unreadable, decide
from cabrank.settings import Settings


def settle(lease: Lease, outcome: Outcome, handler: AnyHandler | None, *, settings: Settings, rng: Random) -> Settlement:
    """The settlement of a run. `handler` is None for a callable that no app registered: its result stays as it is.

    A result that cannot be kept, for it is no JSON or too large, gives the job up: trying again would make it again.
    """
    result: bytes | None = None
    if isinstance(outcome, Returned) and handler is not None:
        try:
            result = _kept(outcome.value, handler, settings.result_limit)
        except PayloadInvalid as error:
            outcome = Raised(GiveUp(f"the result cannot be kept: {error}"))
    decision = decide(outcome, NO_RETRY if handler is None else handler.retry, lease.failures, rng)
    return Settlement(
        lease.job.id,
        lease.run,
        decision.cause,
        after_s=decision.after_s,
        reason=decision.reason,
        error=_error_text(outcome, settings.error_limit),
        result=result,
        value=outcome.value if isinstance(outcome, Returned) else None,
        failure=outcome.error if isinstance(outcome, Raised) else None,
    )


def _kept(value: object, handler: AnyHandler, limit: int) -> bytes | None:
    result = handler.codec.encode_result(value)
    if result is not None and len(result) > limit:
        raise PayloadInvalid(f"it has {len(result):,} bytes, the limit is {limit:,}")
    return result


def _error_text(outcome: Outcome, limit: int) -> str:
    match outcome:
        case Raised(error=error):
            try:
                text = "".join(traceback.format_exception(error))
            except Exception as broken:  # noqa: BLE001 -- an exception's own `__str__` may raise anything
                text = f"{type(error).__name__} (its text could not be had: {type(broken).__name__})"
            return text if len(text) <= limit else text[: limit // 4] + "\n…\n" + text[-(limit - limit // 4) :]
        case TimedOut(after_s=after_s):
            return f"timed out after {after_s:g} s"
        case Unreadable(why=why):
            return why
        case _:
            return ""
