"""How far each label map can be trusted for each class, found out without a single true label.

Dawid and Skene (Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm, 1979): a pixel's true
class is hidden; what a map says of it depends on that class alone, by a confusion matrix of the map's own. Expectation
maximisation finds the matrices that explain best what all maps say. It begins with the plain vote.

A vote counts heads; this knows that one map can be believed when it says tree, and another when it says car. It needs
maps whose errors differ: three networks of one family and one training may well agree on what is wrong, and a student
that learnt from their vote breaks the tie.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset import Dataset
from edgekit_experts.dataset.names import closest
from edgekit_experts.files import read_text
from edgekit_runtime.errors import DataError, ExpertError, UsageError
from edgekit_runtime.modality import Kind, Taxonomy

Array = npt.NDArray[Any]

FORMAT = "edgekit-jury"
VERSION = 1
MAX_ITERATIONS = 100
CONVERGED = 1e-5  # the largest change of any entry of a confusion matrix
# Of all pixels, this share is added to each entry: what was never seen is not thereby impossible.
SMOOTHING = 1e-5
# Class ids of this many maps of that many classes fit into one number of 64 bits.
_MAX_CODE = 2**62


@dataclass(frozen=True)
class Jury:
    """`of` are label maps of the taxonomy's classes C; `prior` `(C,)` how common each class is; `confusion`
    `(maps, C, C + 1)` how often a map says a class (last: nothing) where another is true; rows have the sum 1.
    """

    of: tuple[str, ...]
    classes: tuple[str, ...]
    prior: Array
    confusion: Array
    provenance: dict[str, Any]

    def to_json(self) -> str:
        table = {
            "format": FORMAT,
            "version": VERSION,
            "of": list(self.of),
            "classes": list(self.classes),
            "prior": _rounded(self.prior),
            "confusion": {name: _rounded(matrix) for name, matrix in zip(self.of, self.confusion, strict=True)},
            "provenance": self.provenance,
        }
        return json.dumps(table, indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> Jury:
        """Raises ExpertError for anything but what `to_json` wrote."""
        hint = "edgekit jury DATA -o FILE.toml writes one."
        text = read_text(path, "The jury", ExpertError, hint)
        try:
            table = json.loads(text)
            if table["format"] != FORMAT or table["version"] > VERSION:
                raise ValueError("another format, or a newer one")
            of, classes = tuple(map(str, table["of"])), tuple(map(str, table["classes"]))
            prior = np.asarray(table["prior"], np.float64)
            confusion = np.asarray([table["confusion"][name] for name in of], np.float64)
            if prior.shape != (len(classes),) or confusion.shape != (len(of), len(classes), len(classes) + 1):
                raise ValueError("the matrices do not have the shape of the classes")
            if not (prior.min() > 0 and confusion.min() > 0 and np.isfinite(confusion).all()):
                raise ValueError("probabilities must be greater than 0")
        except (KeyError, TypeError, ValueError) as error:
            raise ExpertError(f"{path} is not a jury: {error}.", hint=hint) from error
        return cls(of, classes, prior, confusion, dict(table.get("provenance", {})))

    def evidence(self, maps: Mapping[str, Array]) -> Array:
        """log P(class, what these maps say), of uint8 ids `(...)` by name: float32 `(..., C)`."""
        shape = next(iter(maps.values())).shape
        total = np.broadcast_to(np.log(self.prior).astype(np.float32), (*shape, len(self.classes))).copy()
        for name, ids in maps.items():
            said = np.minimum(ids, len(self.classes))
            total += np.log(self.confusion[self.of.index(name)]).T.astype(np.float32)[said]
        return total


def fit_jury(
    data: Dataset,
    of: Sequence[str],
    *,
    split: str = "train",
    step: int = 4,
    on_frame: Callable[[], None] = lambda: None,
) -> Jury:
    """Learns from the frames of a split that have all maps, from every `step`th pixel of every `step`th row.

    Raises UsageError for fewer than three maps or names that are no labels of one taxonomy; DataError where no frame
    has them all.
    """
    if len(set(of)) != len(of) or len(of) < 3:
        raise UsageError(
            f"A jury needs three or more different label maps, not {', '.join(of) or 'none'}.",
            hint="With two, nobody can tell which of them errs.",
        )
    taxonomy = _taxonomy(data, of, split)
    base = len(taxonomy) + 1
    if base ** len(of) > _MAX_CODE:
        raise UsageError(f"{len(of)} maps of {len(taxonomy)} classes are too many.", hint="Leave some out.")
    counts: dict[int, int] = {}
    frames = 0
    for name in data.videos:
        video = data.video(name)
        if video.split != split or any(each not in video.modalities for each in of):
            continue
        done = np.logical_and.reduce([video.done(each) for each in of])
        for index in np.flatnonzero(done):
            code = np.zeros((), np.int64)
            for each in of:
                ids = video.read(each, int(index))[::step, ::step, 0].astype(np.int64)
                code = code * base + np.minimum(ids, len(taxonomy))
            for key, count in zip(*np.unique(code, return_counts=True), strict=True):
                counts[int(key)] = counts.get(int(key), 0) + int(count)
            frames += 1
            on_frame()
    if not frames:
        raise DataError(
            f"No frame of the split {split!r} has all of {', '.join(of)}.",
            hint="`edgekit status DATA` shows what is done.",
        )
    said = np.array([[key // base**place % base for place in reversed(range(len(of)))] for key in counts]).T
    prior, confusion, iterations = expectation_maximisation(said, np.array(list(counts.values()), float), len(taxonomy))
    provenance = {
        "data_hash": data.content_hash(),
        "split": split,
        "frames": frames,
        "step": step,
        "iterations": iterations,
    }
    return Jury(tuple(of), taxonomy.classes, prior, confusion, provenance)


def expectation_maximisation(said: Array, weight: Array, classes: int) -> tuple[Array, Array, int]:
    """Priors `(classes,)`, confusion matrices `(maps, classes, classes + 1)` and the number of iterations.

    `said` `(maps, cells)` are ids, `classes` for nothing; `weight` `(cells,)` how many pixels say just that.
    """
    smoothing = SMOOTHING * weight.sum()
    posterior = np.stack([(said == number).sum(axis=0) for number in range(classes)], axis=1).astype(float)
    posterior = np.where(posterior.sum(axis=1, keepdims=True) > 0, posterior, 1.0)
    posterior /= posterior.sum(axis=1, keepdims=True)
    confusion = np.zeros((len(said), classes, classes + 1))
    prior = np.full(classes, 1 / classes)
    iterations = 0
    while iterations < MAX_ITERATIONS:
        iterations += 1
        shares = weight[:, None] * posterior
        prior = shares.sum(axis=0) + smoothing
        prior /= prior.sum()
        before = confusion
        confusion = np.stack([_counted(ids, shares, classes) for ids in said]) + smoothing
        confusion /= confusion.sum(axis=2, keepdims=True)
        if np.abs(confusion - before).max() < CONVERGED:
            break
        evidence = np.log(prior) + sum(np.log(matrix)[:, ids].T for matrix, ids in zip(confusion, said, strict=True))
        posterior = np.exp(evidence - evidence.max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)
    return prior, confusion, iterations


def _counted(ids: Array, shares: Array, classes: int) -> Array:
    """`(classes, classes + 1)`: of each true class, how much of it a map says to be what."""
    return np.stack([np.bincount(ids, shares[:, number], classes + 1) for number in range(classes)])


def _taxonomy(data: Dataset, of: Sequence[str], split: str) -> Taxonomy:
    videos = [video for video in map(data.video, data.videos) if video.split == split]
    there = {name: modality for video in videos for name, modality in video.modalities.items()}
    labels = {name: modality.taxonomy for name, modality in there.items() if modality.kind is Kind.LABELS}
    for name in of:
        if name not in labels:
            raise UsageError(f"{name!r} is no label map of the split {split!r}.", hint=closest(name, labels))
        if there[name].truth:
            raise UsageError(
                f"{name!r} is what people said, or exact truth: a jury is for those who may err.", hint="Leave it out."
            )
    first, *others = (labels[name] for name in of)
    assert first is not None
    if any(other is None or other.classes != first.classes for other in others):
        raise UsageError(
            f"{', '.join(of)} do not speak of the same classes.", hint="The expert label_map brings them to one."
        )
    return first


def _rounded(values: Array) -> list[Any]:
    """Seven digits, never zero."""
    return [_rounded(value) if value.ndim else float(f"{float(value):.7g}") for value in values]
