"""The measuring process of `edgekit bench`: imports the runtime and nothing else, as a device does.

Run as `python -m edgekit.probe BUNDLE FRAMES`; prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

import edgekit_runtime
from edgekit_runtime.model import Flight


def probe(path: str, frames: int) -> dict[str, Any]:
    """`first`: time.time() at the first result; after a warm-up, `ms`: from the start of each frame to its answer, and
    `seconds` for all, with as many at once as the bundle is made for; `rss_mb`: peak or None.
    """
    model = edgekit_runtime.load(path)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*model.manifest.input_size, 3), np.uint8) for _ in range(4)]
    model(images[0])
    first = time.time()
    for image in images * 2:
        model(image)
    flight = Flight(model, model.requests)
    began = time.perf_counter()
    spent = []
    for number in range(frames):
        flight.begin(images[number % len(images)])
        if flight.full:
            spent.append(flight.finish().timing.inference_ms)
    while flight:
        spent.append(flight.finish().timing.inference_ms)
    seconds = time.perf_counter() - began
    return {
        "first": first,
        "ms": spent,
        "seconds": seconds,
        "rss_mb": _peak_mb(),
        "engine": model.engine,
        "precision": model.variant.precision,
        "requests": model.requests,
        "passed_over": [f"{skip.variant.engine} {skip.variant.device}: {skip.reason}" for skip in model.skipped],
        "input_size": list(model.manifest.input_size),
    }


def _peak_mb() -> float | None:
    if sys.platform == "win32":
        return None  # the standard library does not know it there
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


if __name__ == "__main__":
    try:
        print(json.dumps(probe(sys.argv[1], int(sys.argv[2]))))
    except edgekit_runtime.EdgekitError as error:
        print(json.dumps({"error": str(error.args[0]), "hint": error.hint}))
