"""The marks themselves: what is wrong is marked, what is right is not."""

from typing import assert_type


def twice(number: int) -> int:
    return 2 * number


assert_type(twice(3), int)
twice("three")  # error: arg-type reportArgumentType
