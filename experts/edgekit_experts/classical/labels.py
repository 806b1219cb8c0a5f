"""Label maps combined: from one taxonomy to another, and many opinions to one."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgekit_experts.expert import Batch, Expert
from edgekit_experts.jury import Jury
from edgekit_experts.mapping import find_mapping
from edgekit_experts.typecheck import common_taxonomy, expect
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality, Taxonomy

Array = npt.NDArray[Any]


class LabelMap(Expert):
    """Labels `of` another modality in the taxonomy `to`: uint8 (H, W, 1), ids of `to`, its ignore id where ignored.

    `table` is a TOML file that says which class becomes which; without it, the table that ships for this pair
    of taxonomies is taken. Method: arXiv 2510.14862, which maps the classes of its networks to eight of its own.
    """

    example: ClassVar[Mapping[str, Any]] = {"of": "street_labels", "to": "dronescapes"}

    def __init__(self, of: str, to: str, table: str = "") -> None:
        self.of, self.to, self.table = of, to, table
        self._lookup: Array | None = None

    @property
    def identity(self) -> str:
        assert self._lookup is not None, "produces() comes first"
        return hashlib.sha256(self._lookup.tobytes()).hexdigest()[:16]

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.of,)

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        source = expect(inputs, self.of, Kind.LABELS, "label_map")
        assert source.taxonomy is not None
        mapping = find_mapping(source.taxonomy, self.to, self.table)
        self._lookup = mapping.lookup
        return Modality(f"{self.of}_{self.to}", Kind.LABELS, 1, "uint8", taxonomy=mapping.target, truth=source.truth)

    def compute(self, batch: Batch) -> Array:
        assert self._lookup is not None, "produces() comes first"
        return self._lookup[batch.inputs[self.of]]


class MajorityVote(Expert):
    """The class that most of the label maps `of` name, pixel by pixel: uint8 (H, W, 1), ids of their taxonomy.

    Ties go to the lowest class id. Ignored pixels do not vote; where nobody votes, the result is ignored, too.
    `weights` says how many votes each map has, one where nothing is said. Method: arXiv 2510.14862.
    """

    example: ClassVar[Mapping[str, Any]] = {"of": ["simulated_sharp", "simulated_smooth", "simulated_sloppy"]}

    def __init__(self, of: Sequence[str], weights: Sequence[float] = ()) -> None:
        self.of = _names(of, "majority_vote")
        self.weights = tuple(weights)
        if weights and (len(weights) != len(self.of) or min(weights) <= 0):
            raise ExpertError(
                f"majority_vote: {len(self.of)} label maps need as many weights above 0, not {list(weights)}."
            )
        self._taxonomy: Taxonomy | None = None

    @property
    def requires(self) -> tuple[str, ...]:
        return self.of

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        self._taxonomy = common_taxonomy(inputs, self.of, "majority_vote")
        truth = any(inputs[name].truth for name in self.of)
        return Modality("vote", Kind.LABELS, 1, "uint8", taxonomy=self._taxonomy, truth=truth)

    def compute(self, batch: Batch) -> Array:
        assert self._taxonomy is not None, "produces() comes first"
        maps = [batch.inputs[name] for name in self.of]
        if self.weights:
            return weighted_vote(maps, self.weights, self._taxonomy.ignore)
        return vote(maps, self._taxonomy.ignore)[0]


class JuryVerdict(Expert):
    """The most probable class after all that the label maps `of` say: uint8 (H, W, 1), ids of their taxonomy.

    `jury` is a file that `edgekit jury` has written: how far each map can be trusted for each class. What a map ignores
    counts as said, too; where all ignore, the result is ignored. Method: Dawid and Skene (1979), see
    `edgekit_experts.jury`.
    """

    makes = "labels"
    weights_from = "your file"
    example: ClassVar[Mapping[str, Any]] = {
        "of": ["simulated_sharp", "simulated_smooth", "simulated_sloppy"],
        "jury": "jury.json",
    }

    def __init__(self, of: Sequence[str], jury: str) -> None:
        self.of = _names(of, "jury_verdict")
        self._path = Path(jury)
        self._taxonomy: Taxonomy | None = None

    @cached_property
    def _jury(self) -> Jury:
        return Jury.read(self._path)

    @property
    def identity(self) -> str:
        return hashlib.sha256(self._jury.to_json().encode()).hexdigest()[:16]

    @property
    def requires(self) -> tuple[str, ...]:
        return self.of

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        self._taxonomy = common_taxonomy(inputs, self.of, "jury_verdict")
        if missing := [name for name in self.of if name not in self._jury.of]:
            raise ExpertError(
                f"jury_verdict: {self._path} knows nothing of {', '.join(missing)}.",
                hint=f"It knows {', '.join(self._jury.of)}; edgekit jury DATA makes another.",
            )
        if self._taxonomy.classes != self._jury.classes:
            raise ExpertError(
                f"jury_verdict: {self._path} is about {', '.join(self._jury.classes)}; the maps have other classes.",
                hint="Make one for these maps: edgekit jury DATA",
            )
        truth = any(inputs[name].truth for name in self.of)
        return Modality("verdict", Kind.LABELS, 1, "uint8", taxonomy=self._taxonomy, truth=truth)

    def compute(self, batch: Batch) -> Array:
        assert self._taxonomy is not None, "produces() comes first"
        maps = {name: batch.inputs[name][..., 0] for name in self.of}
        verdict: Array = self._jury.evidence(maps).argmax(axis=-1).astype(np.uint8)
        verdict[np.logical_and.reduce([ids == self._taxonomy.ignore for ids in maps.values()])] = self._taxonomy.ignore
        return verdict[..., None]


class VoteAgreement(Expert):
    """How many of the label maps `of` agree with their majority: uint8 (H, W, 1), 0 (none) to 255 (all).

    Method: the share of votes of `majority_vote`, a common measure of an ensemble's confidence.
    """

    example: ClassVar[Mapping[str, Any]] = {"of": ["simulated_sharp", "simulated_smooth", "simulated_sloppy"]}

    def __init__(self, of: Sequence[str]) -> None:
        self.of = _names(of, "vote_agreement")
        self._taxonomy: Taxonomy | None = None

    @property
    def requires(self) -> tuple[str, ...]:
        return self.of

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        self._taxonomy = common_taxonomy(inputs, self.of, "vote_agreement")
        truth = any(inputs[name].truth for name in self.of)
        return Modality("agreement", Kind.IMAGE, 1, "uint8", (0, 255), truth=truth)

    def compute(self, batch: Batch) -> Array:
        assert self._taxonomy is not None, "produces() comes first"
        votes = vote([batch.inputs[name] for name in self.of], self._taxonomy.ignore)[1]
        share = np.arange(256) * 255 // len(self.of)
        return share.astype(np.uint8)[votes]


def vote(maps: Sequence[Array], ignore: int) -> tuple[Array, Array]:
    """The majority of uint8 label maps of one shape, ties to the lowest id, and the number of its votes.

    Counts how many maps agree with each map, which is independent of the number of classes: the winner is the
    map with the largest (agreement, lowest id), found as the maximum of `agreement * 256 + 255 - id`.
    """
    best = np.zeros(maps[0].shape, np.uint16)
    for candidate in maps:
        agreement = np.zeros(candidate.shape, np.uint8)
        for other in maps:
            agreement += other == candidate
        key = agreement.astype(np.uint16)
        key <<= 8
        key |= np.uint8(255) - candidate
        key[candidate == ignore] = 0
        np.maximum(best, key, out=best)
    votes = (best >> 8).astype(np.uint8)
    winner = np.uint8(255) - (best & 255).astype(np.uint8)
    winner[votes == 0] = ignore
    return winner, votes


def weighted_vote(maps: Sequence[Array], weights: Sequence[float], ignore: int) -> Array:
    """The class with the largest sum of weights, ties to the lowest id; `ignore` where no map names one."""
    best = np.zeros(maps[0].shape, np.float32)
    winner = np.full(maps[0].shape, ignore, np.uint8)
    for candidate in maps:
        votes = np.zeros(candidate.shape, np.float32)
        for other, weight in zip(maps, weights, strict=True):
            votes += np.float32(weight) * (other == candidate)
        votes[candidate == ignore] = 0
        better = (votes > best) | ((votes == best) & (votes > 0) & (candidate < winner))
        np.copyto(best, votes, where=better)
        np.copyto(winner, candidate, where=better)
    return winner


class TemporalMedian(Expert):
    """The median of `of` over `frames` consecutive frames, this one in their middle; of labels, the majority.

    Steadies what flickers where the camera moves slowly. Kinds: labels, depth, edges, masks and images. Missing
    values (NaN, ignored) do not count. Ties of labels go to the lowest class id. Shape, dtype, range, unit and
    taxonomy are those of `of`. Method: Tukey's running median (Exploratory Data Analysis, 1977), pixel by pixel.
    """

    makes = "any"
    example: ClassVar[Mapping[str, Any]] = {"of": "labels"}

    def __init__(self, of: str, frames: int = 5) -> None:
        if frames < 3 or frames % 2 == 0:
            raise ExpertError(f"temporal_median: {frames} frames have no middle.", hint="Give 3, 5, 7 ...")
        self.of, self.frames = of, frames
        self.context = (frames // 2, frames // 2)
        self._modality: Modality | None = None

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.of,)

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        source = inputs[self.of]
        if source.kind in (Kind.FLOW, Kind.NORMALS):
            raise ExpertError(f"temporal_median cannot take the median of {source.kind.value} ({self.of!r}).")
        self._modality = replace(source, name=f"{self.of}_steady")
        return self._modality

    def compute(self, batch: Batch) -> Array:
        assert self._modality is not None, "produces() comes first"
        values = batch.inputs[self.of]
        windows = [values[first : first + self.frames] for first in range(len(values) - self.frames + 1)]
        if self._modality.taxonomy:
            return np.stack([vote(list(window), self._modality.taxonomy.ignore)[0] for window in windows])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # all NaN is NaN
            steady = [np.nanmedian(window.astype(np.float32), axis=0) for window in windows]
        return np.stack(steady).astype(values.dtype)


def _names(of: Sequence[str], who: str) -> tuple[str, ...]:
    names = (of,) if isinstance(of, str) else tuple(of)
    if len(names) < 2 or len(set(names)) != len(names):
        raise ExpertError(
            f"{who} needs two or more different label maps, not {list(names)}.",
            hint='Name them: of = ["a", "b", "c"].',
        )
    return names
