"""Numbers of steps to try: the cheapest of each candidate to a tenth, where errors fall with the steps."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

SLACK = 1.1
"""A choice whose cost is within a tenth of the cheapest is good enough."""

MOST = 1024
"""Steps of a candidate, where none are named."""


class Seen(NamedTuple):
    """What is known about one number of steps of a candidate.

    Attributes:
        error: Its error.
        accepted: Whether it is certain to meet the tolerance.
    """

    error: float
    accepted: bool


def too_few(seen: Mapping[int, Seen]) -> int:
    """The largest number of steps that is not accepted, below the smallest that is; 0 where there is none.

    >>> too_few({10: Seen(0.3, False), 20: Seen(0.01, True)}), too_few({})
    (10, 0)
    """
    enough = min((n for n, one in seen.items() if one.accepted), default=math.inf)
    return max((n for n in seen if n < enough), default=0)


def following(seen: Mapping[int, Seen], affordable: int, tolerance: float, order: float) -> int | None:
    """The number of steps to try next, at most ``affordable``; None where there is none left.

    Numbers double until one is accepted, or the last that is affordable is near. Between one that is accepted and the
    last that is not, the next follows from the power law through both. A candidate that would take more than
    :data:`MOST` steps by far, at its order, is given up.

    >>> following({}, 1000, 0.1, 2.0), following({4: Seen(0.4, False)}, 1000, 0.1, 2.0)
    (2, 8)
    >>> following({4: Seen(0.4, False), 8: Seen(0.09, True)}, 7, 0.1, 2.0)
    7
    """
    few = too_few(seen)
    if affordable <= few:
        return None
    enough = min((n for n, one in seen.items() if one.accepted), default=None)
    if enough is None:
        if few and few * math.pow(seen[few].error / tolerance, 1.0 / order) > 4 * MOST:
            return None
        return affordable if affordable <= 4 * few else max(2, 2 * few)
    last = min(affordable, enough - 1)
    if not few or not seen[few].error > tolerance > seen[enough].error > 0.0:
        return (few + 1 + last) // 2
    slope = math.log(seen[few].error / seen[enough].error) / math.log(enough / few)
    return min(max(math.ceil(few * math.pow(seen[few].error / tolerance, 1.0 / slope)), few + 1), last)


def between(first: int, last: int) -> Iterator[int]:
    """Numbers of steps that leave no gap of more than a tenth from ``first`` to ``last``, the last one included.

    >>> list(between(11, 18)), list(between(1, 3)), list(between(5, 4))
    ([18, 17, 16, 15, 14, 13, 12, 11], [3, 2, 1], [])
    """
    n = last
    while n >= first:
        yield n
        n = min(n - 1, math.ceil(n / SLACK))


def most_within(cost: Callable[[int], float], limit: float) -> int:
    """The largest number of steps up to :data:`MOST` whose cost is at most ``limit``; 0 where there is none.

    >>> most_within(lambda n: 2.0 * n, 31.0), most_within(lambda n: 2.0 * n, 1.0)
    (15, 0)
    """
    low, high = 0, MOST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= limit else (low, middle - 1)
    return low
