"""How fast the synthetic world is: whole flights, as the demo and `edgekit extract` read them."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from edgekit_experts.world import Flight
from edgekit_experts.world.landscape import make_landscape


@pytest.mark.parametrize(("size", "frames"), [((540, 960), 30), ((272, 480), 60)])
def test_flight(benchmark: Any, size: tuple[int, int], frames: int) -> None:
    """Goal: 15 frames a second at 540×960 on two cores."""
    flight = Flight(7, size=size, frames=frames)
    flight.render(0)
    benchmark.pedantic(lambda: deque(flight, maxlen=1), rounds=3, warmup_rounds=0)
    benchmark.extra_info["fps"] = frames / benchmark.stats.stats.median


def test_landscape(benchmark: Any) -> None:
    """What a flight costs before its first frame."""
    benchmark.pedantic(lambda: make_landscape.__wrapped__(3), rounds=3, warmup_rounds=0)
