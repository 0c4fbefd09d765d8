"""An app with one of everything that the server tells apart."""

from __future__ import annotations

import msgspec

import cabrank


class Payload(msgspec.Struct):
    device: str
    count: int = 0


class Later(Exception):
    """What the failing document function raises."""


def make_app() -> cabrank.App:
    app = cabrank.App()

    @app.job
    async def note(payload: Payload) -> int:
        return payload.count

    @app.job(name="bare")
    async def bare() -> None: ...

    @app.document("/telemetry")
    def telemetry(document: list[Payload]) -> cabrank.Jobs:
        return note.each(document)

    @app.document("/broken")
    def broken(document: list[Payload]) -> cabrank.Jobs:
        raise Later(f"{len(document)} payloads")

    @app.document("/untyped")
    def untyped(document: list[Payload]) -> cabrank.Jobs:
        return document  # type: ignore[return-value] # pyright: ignore[reportReturnType]

    return app
