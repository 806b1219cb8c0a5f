"""How fast experts are on this machine: measured once, kept in the cache folder."""

from __future__ import annotations

import json
import os
import platform
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_experts.catalogue import STREET_LABELS, example_graph
from edgekit_experts.graph import Graph
from edgekit_experts.learned.compiled import cache_folder
from edgekit_experts.pipeline.evaluate import Unit, evaluate
from edgekit_experts.pipeline.local import one_thread_per_call
from edgekit_experts.video import open_video
from edgekit_runtime.files import whole

SIZE = (540, 960)
_FRAMES = 6


@dataclass(frozen=True)
class Figures:
    """Milliseconds a frame of `size` (height, width), by expert; `machine` and `measured` say where and when."""

    ms: Mapping[str, float]
    size: tuple[int, int]
    machine: str
    measured: str


def measure(more: Mapping[str, Mapping[str, Any]] | None = None) -> Figures:
    """Runs every expert that needs no weights, and those of `more` (parameters by name), over a generated flight.

    In one thread, as a worker of the pipeline does, after a first frame that is not counted. Experts that fail are
    left out.
    """
    graph = example_graph(more)
    unit = _unit(graph)
    with one_thread_per_call():
        _seconds(graph, unit, range(1))
        seconds = _seconds(graph, unit, range(_FRAMES))
    ms = {name: round(1000 * spent / _FRAMES, 2) for name, spent in sorted(seconds.items())}
    return Figures(ms, SIZE, _machine(), f"{datetime.now(UTC):%Y-%m-%d}")


def keep(figures: Figures) -> None:
    """For `kept`, if the cache folder can be written."""
    if path := _path():
        with whole(path) as partial:
            partial.write_text(json.dumps(asdict(figures), indent=1), encoding="utf-8")


def kept() -> Figures | None:
    """What was measured last; None where nothing was, or on another machine with the same home folder."""
    path = _path()
    try:
        table = json.loads(path.read_text(encoding="utf-8")) if path else {}
        ms = {str(name): float(value) for name, value in table["ms"].items()}
        height, width = map(int, table["size"])
        figures = Figures(ms, (height, width), str(table["machine"]), str(table["measured"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return figures if figures.machine == _machine() else None


def _unit(graph: Graph) -> Unit:
    uri = f"world:1?frames={_FRAMES + 1}&size={SIZE[1]}x{SIZE[0]}"  # one more, for flow to the next
    frames = list(open_video(uri).read())
    # Ids of one taxonomy taken for those of another: as good as any for a table to map.
    streams = [{**frame.streams, STREET_LABELS.name: frame.streams["labels"]} for frame in frames]
    return Unit(0, 0, _FRAMES, 0, np.stack([frame.rgb for frame in frames]), streams, {}, video="world-1")


def _seconds(graph: Graph, unit: Unit, frames: range) -> dict[str, float]:
    """Spent on these frames by each expert that had no trouble with any of them."""
    wanted = {node.name: frozenset(frames) for node in graph.nodes}
    of = Unit(unit.number, unit.start, unit.stop, unit.first, unit.rgb, unit.streams, wanted, video=unit.video)
    encode = {node.name: lambda array: b"" for node in graph.nodes}
    outcome = evaluate(graph, of, encode, lambda name, frame: None, threading.Event())
    return {name: spent for name, spent in outcome.seconds.items() if name not in outcome.failed}


def _path() -> Path | None:
    folder = cache_folder()
    return folder / "speed.json" if folder else None


def _machine() -> str:
    return f"{platform.node()}, {os.cpu_count()} cores"
