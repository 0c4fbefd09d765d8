"""What one run is to do: how much input, and at which points the server is killed."""

import random
from enum import StrEnum

import msgspec

RANDOM_SHARES = (0.02, 0.95)  # above it nothing may be left to do for the server that starts again
RANDOM_DELAY_S = 0.02  # a point is reached just after a commit; the delay moves the kill to anywhere between two


class Part(StrEnum):
    """What a kill point is measured in."""

    ACKNOWLEDGED = "documents acknowledged"
    OBJECTS = "objects in the bucket"


class KillPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The server is killed `delay_s` after `share` of `part` is reached."""

    part: Part
    share: float
    delay_s: float = 0.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run: the number of flights, the kill points in order, the name of its folder under `var/`.

    `packed`: many payloads become one object. `bucket` is the URL of an S3 bucket, empty for one that the demo brings.
    """

    flights: int
    kill_points: tuple[KillPoint, ...]
    name: str
    packed: bool = False
    bucket: str = ""


def even_points(kills: int) -> tuple[KillPoint, ...]:
    """Two kills: at one and two thirds of the documents acknowledged. One: at half."""
    return tuple(KillPoint(part=Part.ACKNOWLEDGED, share=kill / (kills + 1)) for kill in range(1, kills + 1))


def random_points(kills: int, *, seed: int) -> tuple[KillPoint, ...]:
    """`kills` points anywhere in the run, while documents come in and while the backlog is worked off."""
    source = random.Random(seed)
    points = [
        KillPoint(
            part=source.choice(list(Part)),
            share=source.uniform(*RANDOM_SHARES),
            delay_s=source.uniform(0, RANDOM_DELAY_S),
        )
        for _ in range(kills)
    ]
    return tuple(sorted(points, key=lambda point: (list(Part).index(point.part), point.share)))
