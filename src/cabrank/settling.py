"""From the outcome of a run to what is recorded of it: the decision, and the result or the error as they are kept."""

from __future__ import annotations

from random import Random

import msgspec

from cabrank.errors import PayloadInvalid
from cabrank.handler import AnyHandler
from cabrank.job import Lease, Settlement
from cabrank.policy import NO_RETRY, UNRECORDABLE, Lost, Outcome, Raised, Returned, TimedOut, Unreadable, Unrecordable, decide, traced
from cabrank.settings import Settings
from cabrank.states import Cause


def settle(lease: Lease, outcome: Outcome, handler: AnyHandler | None, *, settings: Settings, rng: Random) -> Settlement:
    """The settlement of a run. `handler` is None for a callable that no app registered: its result stays as it is.

    What cannot be recorded gives the job up, since trying again would make it again: a result that is no JSON or too large, or
    anything a handler returned or raised that fails when it is looked at. Never raises.
    """
    try:
        return _settlement(lease, outcome, handler, settings=settings, rng=rng)
    except Exception as error:  # noqa: BLE001 -- what is looked at is the user's, and may fail in any way
        why = f"what the run left cannot be kept: {_said(error)}"
        return Settlement(
            lease.job.id,
            lease.run,
            Cause.GAVE_UP,
            reason=UNRECORDABLE,
            error=why[: settings.error_limit],
            failure=error,
            error_type="Unrecordable",
        )


def _settlement(lease: Lease, outcome: Outcome, handler: AnyHandler | None, *, settings: Settings, rng: Random) -> Settlement:
    result = _kept(outcome.value, handler, settings.result_limit) if isinstance(outcome, Returned) and handler is not None else None
    decision = decide(
        outcome,
        NO_RETRY if handler is None else handler.retry,
        lease.failures,
        rng,
        crashes_left=0 if handler is None else (handler.max_crashes or settings.max_crashes) - lease.crashes - 1,
    )
    return Settlement(
        lease.job.id,
        lease.run,
        decision.cause,
        after_s=decision.after_s,
        reason=decision.reason,
        error=_storable(_error_text(outcome, settings.error_limit)),
        result=result,
        value=outcome.value if isinstance(outcome, Returned) and not isinstance(outcome.value, msgspec.Raw) else None,
        failure=outcome.error if isinstance(outcome, Raised | Lost) else None,
        error_type=_error_type(outcome),
        handler="" if handler is None else handler.name,
    )


def _error_type(outcome: Outcome) -> str:
    match outcome:
        case Raised(error=error) | Lost(error=error):
            return _storable(type(error).__qualname__)
        case TimedOut() | Unrecordable():
            return type(outcome).__name__
        case _:
            return ""


def _said(error: Exception) -> str:
    try:
        return _storable(f"{type(error).__name__}: {error}")
    except Exception:  # noqa: BLE001 -- an exception's own `__str__` may raise anything
        return type(error).__name__


def _storable(text: str) -> str:
    """The text with what no store can hold written out: half of a surrogate pair, as file names may bring it."""
    return text.encode("utf-8", "backslashreplace").decode()


def _kept(value: object, handler: AnyHandler, limit: int) -> bytes | None:
    result = bytes(value) if isinstance(value, msgspec.Raw) else handler.codec.encode_result(value)
    if result is not None and len(result) > limit:
        raise PayloadInvalid(f"it has {len(result):,} bytes, the limit is {limit:,}")
    return result


def _error_text(outcome: Outcome, limit: int) -> str:
    match outcome:
        case Raised(error=error, trace=trace):
            return _shortened(trace or traced(error), limit)
        case Lost(error=error):
            return _shortened(str(error), limit)
        case TimedOut(after_s=after_s):
            return f"timed out after {after_s:g} s"
        case Unreadable(why=why) | Unrecordable(why=why):
            return why
        case _:
            return ""


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit // 4] + "\n…\n" + text[-(limit - limit // 4) :]
