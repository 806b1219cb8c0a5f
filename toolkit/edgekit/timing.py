"""How long compiled forms take, all on this machine and in turns."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit_runtime.engines import Engine, Pending

WARM_UP = 8
BLOCKS, BLOCK = 12, 5
TIMING_SECONDS = 8.0

Images = Sequence[npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class Timed:
    """`ms`: single frames, from their start to their answer; `fps`: frames a second, the median of blocks.

    Both with as many frames at once as the engine takes: one where it is tuned for latency.
    """

    ms: npt.NDArray[np.float64]
    fps: float

    @property
    def p50_ms(self) -> float:
        return float(np.percentile(self.ms, 50))

    @property
    def p95_ms(self) -> float:
        return float(np.percentile(self.ms, 95))


def time_engines(engines: Mapping[str, Engine], images: Images, advance: Callable[[], None]) -> dict[str, Timed]:
    """Times engines by name, after a warm-up; `images` are uint8 BGR `(H, W, 3)`.

    Blocks are interleaved (A B C, A B C, …), so that what else the machine does hits all alike. Give the forms for
    one library at a time: idle threads of ONNX Runtime spin and would slow down whatever is timed after them.
    """
    for engine in engines.values():
        for _ in range(max(WARM_UP, engine.requests)):
            engine.infer(images[0][None])
    spent: dict[str, list[float]] = {key: [] for key in engines}
    rates: dict[str, list[float]] = {key: [] for key in engines}
    deadline = time.monotonic() + TIMING_SECONDS
    for number in range(BLOCKS):
        for key, engine in engines.items():
            ms, fps = _block(engine, images, number)
            spent[key] += ms
            rates[key].append(fps)
        advance()
        if time.monotonic() > deadline and number >= 2:
            break
    return {key: Timed(np.asarray(spent[key]), float(np.median(rates[key]))) for key in engines}


def _block(engine: Engine, images: Images, first: int) -> tuple[list[float], float]:
    """Milliseconds of each frame, and frames a second, with as many at once as the engine takes.

    The first of each request do not count: they find the caches full of the previous engine's weights.
    """
    begun: deque[tuple[float, Pending]] = deque()
    ms, ends = [], []

    def finish(most: int) -> None:
        while len(begun) > most:
            started, pending = begun.popleft()
            pending()
            ends.append(time.perf_counter())
            ms.append((ends[-1] - started) * 1e3)

    at_once = engine.requests
    for step in range((BLOCK + 1) * at_once):
        image = images[(first + step) % len(images)][None]
        begun.append((time.perf_counter(), engine.start(image)))
        finish(at_once - 1)
    finish(0)
    return ms[at_once:], (len(ends) - at_once) / (ends[-1] - ends[at_once - 1])
