"""The trial of all candidates: opened as the runtime opens them, timed in turns, judged on the same frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit import candidates as forms
from edgekit.candidates import Candidate, Measured, Skipped
from edgekit.console import progress
from edgekit.exportable import Exportable
from edgekit.judging import Arrays, class_maps, fidelity, tally, targets_of
from edgekit.material import Image, Material
from edgekit.timing import BLOCKS, Timed, time_engines
from edgekit_runtime.errors import BuildError
from edgekit_runtime.modality import Taxonomy
from edgekit_student.metrics import Confusion, doubts, miou

GOLDEN_FRAMES = 8


@dataclass(frozen=True)
class Trial:
    """`rows` are what was measured, empty where the baseline does not run; `refused` what no engine would open.

    `golden` are some of the judged frames (uint8 BGR), `references` what the `original` (PyTorch, or ONNX Runtime) says
    of them and `answers` what each candidate does, by its key; `confusion` likewise, on all judged frames, where there
    are classes. `baseline` is the key of what everything is compared with.
    """

    rows: tuple[Measured, ...]
    refused: tuple[Skipped, ...]
    golden: Sequence[Image]
    references: Sequence[Arrays]
    answers: Mapping[str, Sequence[Arrays]]
    confusion: Mapping[str, Confusion]
    baseline: str
    original: str


def measure(exporter: Exportable, made: Sequence[Candidate], material: Material) -> Trial:
    """Latency, accuracy and agreement with the original network of every candidate that can be opened.

    Raises BuildError where the labels to judge by are empty.
    """
    images = [frame.image for frame in material.judged]
    few = slice(0, None, max(1, len(images) // GOLDEN_FRAMES))
    golden = images[few][:GOLDEN_FRAMES]
    references = [exporter.reference(image) for image in golden]
    with forms.opened(exporter, made) as (engines, reasons):
        spent: dict[str, Timed] = {}
        here = [candidate for candidate in made if candidate.key in engines and not candidate.absent]
        libraries = list(dict.fromkeys(candidate.target.engine for candidate in here))
        if libraries:
            with progress("Timing", BLOCKS * len(libraries)) as advance:
                for library in libraries:
                    group = {c.key: engines[c.key] for c in here if c.target.engine == library}
                    spent |= time_engines(group, golden, advance)
        ran_on = {key: f"{engine.name} on {engine.device}" for key, engine in engines.items()}
        with progress("Judging", len(engines)) as advance:
            said = {}
            for key, engine in engines.items():
                said[key] = forms.answers(engine, images)
                advance()
    answers = {key: each[few][:GOLDEN_FRAMES] for key, each in said.items()}
    refused = tuple(Skipped(name, reason) for name, reason in reasons.items())
    base = forms.baseline_key(exporter.profile)
    if base not in said:
        return Trial((), refused, golden, references, {}, {}, base, exporter.original)
    tables = _tables(exporter.taxonomy, material, said, said[base])
    best = miou(tables[base]) if exporter.taxonomy else None
    if best is not None and not np.isfinite(best):
        raise BuildError(
            "The frames to judge by hold no labelled pixel.", hint="Label some, or remove the empty labels modality."
        )
    rows = []
    for candidate in made:
        if (key := candidate.key) in engines:
            timed = spent.get(key)
            p50, p95, fps = (timed.p50_ms, timed.p95_ms, timed.fps) if timed else (None, None, None)
            found: float | None = None
            against: tuple[str, ...] = ()
            if exporter.taxonomy:
                found = miou(tables[key])
                against = doubts(tables[key], exporter.taxonomy.classes, "the labels", told_apart=material.labelled)
            drop = None if best is None or found is None else best - found
            near = fidelity(said[key], said[base])
            original = fidelity(answers[key], references)
            rows.append(Measured(candidate, p50, p95, found, drop, near, original, against, fps, ran_on[key]))
    return Trial(tuple(rows), refused, golden, references, answers, tables, base, exporter.original)


def _tables(
    taxonomy: Taxonomy | None, material: Material, said: Mapping[str, Sequence[Arrays]], baseline: Sequence[Arrays]
) -> dict[str, Confusion]:
    if taxonomy is None:
        return {}
    targets = targets_of(material.judged, class_maps(baseline))
    return {key: tally(class_maps(maps), targets, taxonomy) for key, maps in said.items()}
