"""`edgekit eval --html`: one page that shows where a model is wrong; it needs nothing but itself."""

from __future__ import annotations

import heapq
import math
from datetime import UTC, datetime
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_experts.files import output_file
from edgekit_runtime.colour import Picture, colourise
from edgekit_runtime.modality import Kind, Modality, Taxonomy

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgekit_student.evaluate import Judged, Score

TEMPLATE = "eval.html.j2"
WORST_FRAMES = 6
PICTURE_WIDTH = 480
# What the page shows of each video's depth and normals.
GEOMETRY_COLUMNS = {
    "depth_abs_rel": "AbsRel",
    "depth_rmse_m": "RMSE m",
    "depth_delta1": "within 1.25",
    "normals_mean_deg": "normals mean °",
    "normals_median_deg": "normals median °",
}


class Worst:
    """The frames with the lowest mIoU of all that were added."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Judged]] = []
        self._order = count()

    def add(self, judged: Judged) -> None:
        if math.isnan(judged.miou):  # nothing of it is labelled
            return
        entry = -judged.miou, next(self._order), judged
        if len(self._heap) < WORST_FRAMES:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    @property
    def frames(self) -> list[Judged]:
        """The worst first."""
        return [judged for *_, judged in sorted(self._heap, reverse=True)]


def write_eval_page(score: Score, worst: Worst, location: str, split: str, path: Path) -> None:
    """Writes the page to `path`, whole or not at all. Raises SinkError when that fails."""
    page = render(score, worst, location, split)
    with output_file(path) as partial:
        partial.write_text(page, encoding="utf-8")


def render(score: Score, worst: Worst, location: str, split: str) -> str:
    """The page as HTML 5; what comes from files of others is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("edgekit") / TEMPLATE).read_text(encoding="utf-8"))
    taxonomy = score.taxonomy
    rows = [[cell / total if (total := sum(row)) else None for cell in row] for row in score.confusion]
    return template.render(
        score=score,
        location=location,
        split=split,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        colours=["#{:02x}{:02x}{:02x}".format(*colour) for colour in taxonomy.colours] if taxonomy else [],
        rows=list(zip(taxonomy.classes if taxonomy else (), rows, strict=True)),
        frames=[_frame(judged, taxonomy) for judged in worst.frames] if taxonomy else [],
        geometry={
            video: [(words, measures[name]) for name, words in GEOMETRY_COLUMNS.items() if name in measures]
            for video, measures in score.geometry_per_video.items()
            if measures
        },
    )


def _frame(judged: Judged, taxonomy: Taxonomy) -> dict[str, object]:
    from edgekit_experts.status_page import jpeg_uri
    from edgekit_student.evaluate import TRUTH

    labels, ids = Modality(TRUTH, Kind.LABELS, taxonomy=taxonomy), judged.prediction.ids
    assert ids is not None, "what has no labels has no mIoU, and is never among the worst"
    pictures = {
        "frame": judged.sample["rgb"],
        "truth": colourise(labels, judged.sample[TRUTH]),
        "prediction": colourise(labels, ids[..., None]),
    }
    if judged.prediction.uncertainty is not None:
        name, picture = _disagreement(judged.prediction.uncertainty)
        pictures[name] = picture
    uris = {name: jpeg_uri(picture, PICTURE_WIDTH) for name, picture in pictures.items()}
    return {"video": judged.ref.video, "index": judged.ref.index, "miou": judged.miou, "pictures": uris}


def _disagreement(uncertainty: npt.NDArray[np.floating[Any]]) -> tuple[str, Picture]:
    """How far the members of an ensemble disagree, `(H, W)`, in grey: white is where most, which the name says."""
    most = float(uncertainty.max())
    grey = colourise(Modality("uncertainty", Kind.EDGES), (uncertainty / max(most, 1e-6) * 255).astype("uint8"))
    return f"disagreement of the ensemble, white is {100 * most:.0f} %", grey
