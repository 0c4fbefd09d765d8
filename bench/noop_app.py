"""The app that is measured: the document of the Go original, and a handler that does nothing."""

import msgspec

import cabrank

app = cabrank.App()


class Payload(msgspec.Struct):
    device: str
    body: str


class Document(msgspec.Struct):
    version: str
    token: str
    data: list[Payload]


@app.job
async def noop(payload: Payload) -> None:
    pass


@app.document("/telemetry")
def telemetry(document: Document) -> cabrank.Jobs:
    return noop.each(document.data)
