"""How contenders are compared: in turns, after a warm-up, each with its median and spread, ratios within the run.

A contender is something to call, timed here, or a peer in a process of its own, which times itself. They take turns
(A B C, A B C, …), so that what else the machine does hits all alike; a ratio is the median of those of each turn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np


class SelfTimed(Protocol):
    """A contender that times itself."""

    def seconds(self) -> float: ...


Contender: TypeAlias = Callable[[], Any] | SelfTimed

# What is faster than this is run once before, untimed: its caches are full of another's weights.
_PRIMED_S = 0.05
# Threads of the one before (OpenMP's, ONNX Runtime's) go on spinning for a while.
_REST_S = 0.005


class Turns:
    """Runs contenders in turns; `spent` has the seconds of each by name, the first of `contenders` is the subject."""

    def __init__(self, contenders: Mapping[str, Contender], warm_up: int = 3) -> None:
        self.contenders = dict(contenders)
        self.spent: dict[str, list[float]] = {name: [] for name in contenders}
        self._primed: dict[str, bool] = {}
        for name, contender in self.contenders.items():
            last = 0.0
            for _ in range(max(1, warm_up)):
                last = seconds_of(contender)
                if last > 1:
                    break
            self._primed[name] = last < _PRIMED_S

    def prime(self, name: str) -> None:
        time.sleep(_REST_S)
        if self._primed[name]:
            seconds_of(self.contenders[name])

    def take(self, name: str) -> None:
        self.prime(name)
        self.spent[name].append(seconds_of(self.contenders[name]))


def seconds_of(contender: Contender) -> float:
    """Of one run."""
    if not callable(contender):
        return contender.seconds()
    started = time.perf_counter()
    contender()
    return time.perf_counter() - started


def compared(benchmark: Any, contenders: Mapping[str, Contender], *, rounds: int, warm_up: int = 3) -> None:
    """Measures the first contender as `benchmark`, and the others in turns with it, into `benchmark.extra_info`:
    `ms` of all, and `times_as_fast`, how many times as fast as each other the first one is.
    """
    turns = Turns(contenders, warm_up)
    subject, *others = contenders
    run = contenders[subject]
    assert callable(run), "the subject is ours, and is timed by pytest-benchmark"

    def others_first() -> None:
        for other in others:
            turns.take(other)
        turns.prime(subject)

    benchmark.pedantic(run, setup=others_first, rounds=rounds)
    turns.spent[subject] = list(benchmark.stats.stats.data)
    benchmark.extra_info |= told(turns.spent)


def told(spent: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """`ms` by contender and `times_as_fast` by the others, of seconds that were taken in turns."""
    subject, *others = spent
    own = np.asarray(spent[subject])
    return {
        "subject": subject,
        "ms": {name: spread(1e3 * np.asarray(seconds)) for name, seconds in spent.items()},
        "times_as_fast": {other: spread(np.asarray(spent[other]) / own) for other in others},
    }


def spread(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Median and quartiles, to four digits, and of how many."""
    low, median, high = np.percentile(np.asarray(values, float), (25, 50, 75))
    return {"median": digits(median), "q1": digits(low), "q3": digits(high), "count": len(values)}


def growth(points: Mapping[float, float]) -> dict[str, Any]:
    """The exponent e of the best y = c·x^e (least squares of the logarithms), and the points it is of."""
    x, y = (np.log(np.asarray(list(values), float)) for values in (points.keys(), points.values()))
    exponent = float(np.polyfit(x, y, 1)[0])
    return {"exponent": round(exponent, 3), "points": {str(key): digits(value) for key, value in points.items()}}


def digits(value: float, count: int = 4) -> float:
    """Rounded to so many significant digits."""
    if not value or not math.isfinite(value):
        return float(value)
    return round(float(value), count - 1 - math.floor(math.log10(abs(value))))
