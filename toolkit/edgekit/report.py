"""The page about a build: what was tried, what ships and why, what it looks like, where its time goes.

One file that needs nothing but itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edgekit.candidates import Measured, Skipped
from edgekit.judging import LABELS, Arrays
from edgekit.layers import Layer, layers_of
from edgekit_experts.files import output_file
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.colour import colourise
from edgekit_runtime.manifest import Manifest
from edgekit_student.metrics import class_iou

if TYPE_CHECKING:
    from edgekit.trial import Trial

TEMPLATE = "report.html.j2"
PICTURES = 4
PICTURE_WIDTH = 480
LARGEST = 12
PLOT = (720, 280)
_CHARACTER, _LINE, _RADIUS = 6.8, 14, 6  # of a label, and of a mark, in pixels
_MARGIN = (56, 16, 16, 40)  # left, right, top, bottom


def write_report(bundle: Path, manifest: Manifest, skipped: Sequence[Skipped], trial: Trial, chosen: Measured) -> Path:
    """Writes `<bundle without its suffix>-report.html` beside a bundle and returns its path. Raises SinkError."""
    page = render(bundle, manifest, skipped, trial, chosen)
    path = bundle.with_name(f"{bundle.stem}-report.html")
    with output_file(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def render(bundle: Path, manifest: Manifest, skipped: Sequence[Skipped], trial: Trial, chosen: Measured) -> str:
    """The page as HTML 5; what comes from files of others is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("edgekit") / TEMPLATE).read_text(encoding="utf-8"))
    layers = _layers(bundle, chosen, trial)
    return template.render(
        manifest=manifest,
        original=trial.original,
        throughput=manifest.provenance["profile"]["hint"] == "throughput",
        size=bundle.stat().st_size,
        rows=manifest.candidates,
        skipped=skipped,
        labels=manifest.taxonomy is not None,
        labelled=manifest.candidates[0]["accuracy_metric"] == "miou",
        depth=any(row["depth_error"] is not None for row in manifest.candidates),
        plot=_plot(manifest.candidates),
        classes=_classes(manifest, trial, chosen),
        pictures=_pictures(manifest, trial, chosen),
        precisions=Counter(layer.precision or "an unknown precision" for layer in layers).most_common(),
        layers=sorted(layers, key=lambda layer: -layer.ms)[:LARGEST],
        total=sum(layer.ms for layer in layers),
        slowest=max((layer.ms for layer in layers), default=0.0),
    )


def _layers(bundle: Path, chosen: Measured, trial: Trial) -> list[Layer]:
    candidate = chosen.candidate
    return layers_of(open_bundle(bundle), candidate.stand_in or candidate.variant, trial.golden[0][None])


def _classes(manifest: Manifest, trial: Trial, chosen: Measured) -> list[dict[str, Any]]:
    """IoU of each class that occurs, of float32 and of what ships; None where only the other has it."""
    if manifest.taxonomy is None:
        return []
    before, after = (class_iou(trial.confusion[key]) for key in (trial.baseline, chosen.candidate.key))
    rows = zip(manifest.taxonomy.classes, manifest.taxonomy.colours, before, after, strict=True)
    return [
        {
            "name": name,
            "colour": "#{:02x}{:02x}{:02x}".format(*colour),
            "fp32": None if math.isnan(one) else 100 * one,
            "shipped": None if math.isnan(other) else 100 * other,
        }
        for name, colour, one, other in rows
        if not (math.isnan(one) and math.isnan(other))
    ]


def _pictures(manifest: Manifest, trial: Trial, chosen: Measured) -> list[list[dict[str, str]]]:
    """For some golden frames and each output: the frame, what the original says, what ships, and where they differ."""
    from edgekit_experts.status_page import jpeg_uri

    answers = trial.answers[chosen.candidate.key]
    step = max(1, len(trial.golden) // PICTURES)
    found = []
    for number in range(0, len(trial.golden), step)[:PICTURES]:
        frame = cv2.cvtColor(trial.golden[number], cv2.COLOR_BGR2RGB)
        row = [{"title": "frame", "uri": jpeg_uri(np.asarray(frame, np.uint8), PICTURE_WIDTH)}]
        for output in manifest.outputs:
            assert output.modality is not None
            both = trial.references[number], answers[number]
            span = None if output.name == LABELS else _span([each[output.name] for each in both])
            for title, said in zip((trial.original, "bundle"), both, strict=True):
                picture = colourise(output.modality, said[output.name], span)
                picture = np.asarray(cv2.resize(picture, frame.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
                row.append({"title": f"{output.name}, {title}", "uri": jpeg_uri(picture, PICTURE_WIDTH)})
        row.append({"title": _difference(both), "uri": ""})
        found.append(row)
    return found


def _span(arrays: Sequence[np.ndarray[Any, Any]]) -> tuple[float, float]:
    values = np.concatenate([array.ravel() for array in arrays])
    return float(np.nanmin(values)), float(np.nanmax(values))


def _difference(both: tuple[Arrays, Arrays]) -> str:
    one, other = both
    parts = []
    for name in one:
        if name == LABELS:
            parts.append(f"{100 * float(np.mean(one[name] == other[name])):.2f} % of the pixels have the same class")
        else:
            off = float(np.abs(one[name] - other[name]).mean() / max(float(np.abs(one[name]).mean()), 1e-9))
            parts.append(f"{name} is {100 * off:.2f} % off")
    return "; ".join(parts)


def _plot(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Latency against accuracy, one mark a candidate that was timed: places in a drawing of `PLOT` pixels."""
    timed = [row for row in rows if row["p50_ms"] is not None]
    if not timed:
        return None
    left, right, top, bottom = _MARGIN
    width, height = PLOT
    longest = 1.15 * max(row["p50_ms"] for row in timed)
    lowest, highest = (pick(row["accuracy"] for row in timed) for pick in (min, max))
    room = max(0.02, (highest - lowest) * 0.2)
    lowest, highest = lowest - room, min(1.0, highest + room)

    def x(ms: float) -> float:
        return float(left + (width - left - right) * ms / longest)

    def y(accuracy: float) -> float:
        return float(height - bottom - (height - top - bottom) * (accuracy - lowest) / max(highest - lowest, 1e-9))

    marks: list[dict[str, Any]] = [
        {
            "x": x(row["p50_ms"]),
            "y": y(row["accuracy"]),
            "name": f"{row['engine']} {row['precision']}",
            "chosen": row["chosen"],
            "refused": bool(row["rejected"]),
        }
        for row in sorted(timed, key=lambda row: -row["accuracy"])
    ]
    _place_labels(marks, width - right, height - bottom)
    return {
        "width": width,
        "height": height,
        "marks": marks,
        "ms": [{"x": x(value), "text": f"{value:g}"} for value in _ticks(0.0, longest)],
        "accuracy": [{"y": y(value), "text": f"{100 * value:.1f}"} for value in _ticks(lowest, highest)],
        "left": left,
        "bottom": height - bottom,
        "right": width - right,
        "top": top,
    }


def _place_labels(marks: Sequence[dict[str, Any]], right: float, bottom: float) -> None:
    """Gives each mark `label_x` and `label_y`, beside it, off other marks and labels, as near as there is room."""
    taken = [(mark["x"] - _RADIUS, mark["x"] + _RADIUS, mark["y"]) for mark in marks]  # from, to, y
    for mark in marks:
        length = _CHARACTER * len(mark["name"])
        start = mark["x"] + 10 if mark["x"] + 10 + length < right else mark["x"] - 10 - length
        offsets = (sign * _LINE * steps for steps in range(len(marks) + 1) for sign in (1, -1))
        free = (
            height
            for offset in offsets
            if _LINE < (height := mark["y"] + offset) < bottom
            and not any(start < end and begin < start + length and abs(height - at) < _LINE for begin, end, at in taken)
        )
        mark["label_x"], mark["label_y"] = start, next(free, mark["y"])
        taken.append((start, start + length, mark["label_y"]))


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers in between."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step)
    return [round(step * number, 10) for number in range(first, math.floor(high / step) + 1)]
