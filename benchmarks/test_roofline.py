"""The limits of this machine, and how near each network comes: see roofline.py, which is also a command."""

from __future__ import annotations

from typing import Any

import roofline


def test_roofline(benchmark: Any) -> None:
    found: list[Any] = []
    benchmark.pedantic(lambda: found.append(roofline.measure()), rounds=1)
    limits, places = found[0]
    benchmark.extra_info |= roofline.as_document(limits, places)
