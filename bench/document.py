"""The document that every request of a round posts; the same bytes for every server."""

import json

PAYLOAD_SIZE = 256  # bytes of JSON for one payload
MALFORMED = b'{"version": "1", "token": '


def document(*, payloads: int) -> bytes:
    """A JSON document with so many payloads of 256 bytes each: 308 bytes with one, 2,621 with ten."""
    data = [payload(number) for number in range(payloads)]
    return json.dumps({"version": "1", "token": "0123456789abcdef", "data": data}, separators=(",", ":")).encode()


def payload(number: int) -> dict[str, str]:
    """One payload, filled up so that its JSON has `PAYLOAD_SIZE` bytes."""
    empty = {"device": f"device-{number:04}", "body": ""}
    room = PAYLOAD_SIZE - len(json.dumps(empty, separators=(",", ":")))
    return empty | {"body": ("0123456789abcdef" * 16)[:room]}
