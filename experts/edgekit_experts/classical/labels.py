"""Label maps combined: from one taxonomy to another, and many opinions to one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_experts.expert import Batch, Expert
from edgekit_experts.mapping import find_mapping
from edgekit_experts.typecheck import common_taxonomy, expect
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality, Taxonomy

Array = npt.NDArray[Any]


class LabelMap(Expert):
    """Labels `of` another modality in the taxonomy `to`: uint8 (H, W, 1).

    `table` is a TOML file that says which class becomes which; without it, the table that ships for this pair
    of taxonomies is taken.
    """

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
    """The class that most of the label maps `of` name, pixel by pixel: uint8 (H, W, 1).

    Ties go to the lowest class id. Ignored pixels do not vote; where nobody votes, the result is ignored, too.
    """

    def __init__(self, of: Sequence[str]) -> None:
        self.of = _names(of, "majority_vote")
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
        return vote([batch.inputs[name] for name in self.of], self._taxonomy.ignore)[0]


class VoteAgreement(Expert):
    """How many of the label maps `of` agree with their majority: uint8 (H, W, 1), 0 (none) to 255 (all)."""

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


def _names(of: Sequence[str], who: str) -> tuple[str, ...]:
    names = (of,) if isinstance(of, str) else tuple(of)
    if len(names) < 2 or len(set(names)) != len(names):
        raise ExpertError(
            f"{who} needs two or more different label maps, not {list(names)}.",
            hint='Name them: of = ["a", "b", "c"].',
        )
    return names
