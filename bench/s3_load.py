"""The load of `bench.s3`: documents at a given rate over connections that are kept alive, from a process of its own.

    python -m bench.s3_load PORT PATH PAYLOADS RATE SECONDS

For SECONDS it offers RATE payloads a second in documents of PAYLOADS, or as many as are answered, and prints what came of them as JSON.
Requests are made once, so that little of the machine goes into making them.
"""

import asyncio
import sys
import time

import msgspec

CONNECTIONS = 32
BODY = "x" * 1024
ACCEPTED, LATER = b"202", {b"429", b"503"}
PAUSE_S = 0.2


class Offered(msgspec.Struct, kw_only=True):
    """What was asked, and how it was answered. `acks_s`: how long each 202 took, of those that were sent in time."""

    acknowledged: int = 0
    refused: int = 0
    late_s: float = 0.0
    cpu_s: float = 0.0
    took_s: float = 0.0
    acks_s: list[float] = []


def request(path: str, payloads: int) -> bytes:
    """The bytes of one request."""
    body = msgspec.json.encode({"data": [{"device": f"device-{number}", "body": BODY} for number in range(payloads)]})
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def offer(port: int, path: str, *, payloads: int, rate: float, seconds: float) -> Offered:
    """Offer so much, on time as far as there is a free connection."""
    offered, sent = Offered(), request(path, payloads)
    documents = iter(range(int(rate * seconds / payloads)))
    begun_at = time.perf_counter()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in documents:
            due_s = begun_at + number * payloads / rate - time.perf_counter()
            if due_s > 0:
                await asyncio.sleep(due_s)
            if time.perf_counter() - begun_at > seconds:
                break
            offered.late_s = max(offered.late_s, -due_s)
            while not await exchange(reader, writer, sent, offered):  # noqa: ASYNC110 -- the server does not tell when it has room
                await asyncio.sleep(PAUSE_S)
            offered.acknowledged += payloads
        writer.close()

    async with asyncio.TaskGroup() as connections:
        for _ in range(CONNECTIONS):
            connections.create_task(connection())
    offered.cpu_s, offered.took_s = time.process_time(), time.perf_counter() - begun_at
    return offered


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes, offered: Offered) -> bool:
    """Send the document and read the answer. False: it is to be sent later."""
    begun_at = time.perf_counter()
    writer.write(sent)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    body = await reader.readexactly(length)
    status = head[9:12]
    if status in LATER:
        offered.refused += 1
        return False
    if status != ACCEPTED:
        raise SystemExit(f"{head.decode()}{body[:500].decode()}")
    offered.acks_s.append(time.perf_counter() - begun_at)
    return True


if __name__ == "__main__":
    port, path, payloads, rate, seconds = sys.argv[1:]
    came_of_it = asyncio.run(offer(int(port), path, payloads=int(payloads), rate=float(rate), seconds=float(seconds)))
    sys.stdout.buffer.write(msgspec.json.encode(came_of_it))
