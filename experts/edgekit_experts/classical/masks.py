"""Masks that follow from what other experts said: groups of classes, nearness, places to land."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset.names import closest
from edgekit_experts.expert import Batch, Expert
from edgekit_experts.typecheck import expect
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality, Taxonomy

Array = npt.NDArray[Any]


class ClassMask(Expert):
    """Where most of the label maps `of` name a class of a group: uint8 (H, W, 1), 0 or 1.

    `group` is one that ships (buildings, sky-and-water, transportation, containing, vegetation, safe-to-land), for
    every taxonomy that ships; or `classes` names them. The maps may speak different taxonomies. `votes` is how
    many maps must agree, by default more than half of those that are not ignored at the pixel. Method and groups:
    arXiv 2510.14862.
    """

    example: ClassVar[Mapping[str, Any]] = {"of": "labels", "group": "buildings"}

    def __init__(self, of: str | Sequence[str], group: str = "", classes: Sequence[str] = (), votes: int = 0) -> None:
        self.of = (of,) if isinstance(of, str) else tuple(of)
        if not self.of or bool(group) == bool(classes) or not 0 <= votes <= len(self.of):
            raise ExpertError(
                "class_mask needs label maps, and either a group or classes.",
                hint='Such as: of = ["a", "b"], group = "buildings".',
            )
        if group and group not in groups():
            raise ExpertError(f"class_mask: there is no group {group!r}.", hint=closest(group, groups()))
        self.group, self.classes, self.votes = group, tuple(classes), votes
        self._lookups: dict[str, tuple[Array, int]] = {}

    @property
    def requires(self) -> tuple[str, ...]:
        return self.of

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        for name in self.of:
            taxonomy = expect(inputs, name, Kind.LABELS, "class_mask").taxonomy
            assert taxonomy is not None
            self._lookups[name] = self._lookup(taxonomy), taxonomy.ignore
        truth = any(inputs[name].truth for name in self.of)
        return Modality(self.group or "class_mask", Kind.MASK, 1, "uint8", (0, 1), truth=truth)

    def compute(self, batch: Batch) -> Array:
        shape = batch.inputs[self.of[0]].shape
        yes, known = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        for name in self.of:
            lookup, ignore = self._lookups[name]
            labels = batch.inputs[name]
            yes += lookup[labels]
            known += labels != ignore
        enough = yes >= self.votes if self.votes else 2 * yes > known
        return np.asarray(enough, np.uint8)

    def _lookup(self, taxonomy: Taxonomy) -> Array:
        wanted = self.classes
        if self.group:
            table = groups()[self.group]
            if taxonomy.name not in table:
                raise ExpertError(
                    f"The group {self.group!r} is not known for the taxonomy {taxonomy.name!r}.",
                    hint="Name the classes instead: classes = [...].",
                )
            wanted = tuple(table[taxonomy.name])
        unknown = [name for name in wanted if name not in taxonomy.classes]
        if unknown:
            raise ExpertError(
                f"class_mask: {taxonomy.name!r} has no class {unknown[0]!r}.",
                hint=closest(unknown[0], taxonomy.classes),
            )
        lookup = np.zeros(256, np.uint8)
        lookup[[taxonomy.classes.index(name) for name in wanted]] = 1
        return lookup


class Nearby(Expert):
    """The part of the mask `of` that is nearer than `limit`: uint8 (H, W, 1), 0 or 1.

    `depth` names the depth, `limit` is in its unit; for inverse depth, near is above it. The paper takes buildings
    within 0.3 of the unit range of relative depth (arXiv 2510.14862).
    """

    example: ClassVar[Mapping[str, Any]] = {"of": "class_mask", "depth": "true_depth", "limit": 100.0}

    def __init__(self, of: str, depth: str, limit: float) -> None:
        self.of, self.depth, self.limit = of, depth, limit
        self._near_is_high = False

    @property
    def requires(self) -> tuple[str, ...]:
        return self.of, self.depth

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        mask = expect(inputs, self.of, Kind.MASK, "nearby")
        depth = expect(inputs, self.depth, Kind.DEPTH, "nearby")
        self._near_is_high = depth.near_is_high
        return Modality(f"{self.of}_nearby", Kind.MASK, 1, "uint8", (0, 1), truth=mask.truth or depth.truth)

    def compute(self, batch: Batch) -> Array:
        depth = batch.inputs[self.depth]
        near = depth >= self.limit if self._near_is_high else depth <= self.limit
        return np.asarray(batch.inputs[self.of].astype(bool) & near, np.uint8)


class SafeLanding(Expert):
    """Where a drone could land: level ground, near enough to be sure of it: uint8 (H, W, 1), 0 or 1.

    From geometry alone: with normals n mapped to [0, 1], n_y > `level`, n_x + n_z < `tilt`, and depth no more than
    `farthest` (in its unit; for inverse depth, no less). With `semantics`, the name of a mask such as that of
    `class_mask` over the group safe-to-land, also only there. The rule and its numbers are those of
    arXiv 2510.14862, where up is +y; normals of this pipeline look up with -y, which is accounted for.
    """

    example: ClassVar[Mapping[str, Any]] = {"normals": "true_normals", "depth": "true_depth", "farthest": 100.0}

    def __init__(
        self,
        normals: str,
        depth: str,
        semantics: str = "",
        level: float = 0.8,
        tilt: float = 1.2,
        farthest: float = 0.9,
    ) -> None:
        self.normals, self.depth, self.semantics = normals, depth, semantics
        self.level, self.tilt, self.farthest = level, tilt, farthest
        self._near_is_high = False

    @property
    def requires(self) -> tuple[str, ...]:
        return tuple(name for name in (self.normals, self.depth, self.semantics) if name)

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        expect(inputs, self.normals, Kind.NORMALS, "safe_landing")
        self._near_is_high = expect(inputs, self.depth, Kind.DEPTH, "safe_landing").near_is_high
        if self.semantics:
            expect(inputs, self.semantics, Kind.MASK, "safe_landing")
        truth = any(inputs[name].truth for name in self.requires)
        return Modality("safe_landing", Kind.MASK, 1, "uint8", (0, 1), truth=truth)

    def compute(self, batch: Batch) -> Array:
        x, y, z = np.moveaxis(batch.inputs[self.normals].astype(np.float32), -1, 0)
        # Mapped to [0, 1] with y up and z towards the viewer, as the paper's rule has them.
        up, sum_of_others = (1 - y) / 2, (1 + x) / 2 + (1 - z) / 2
        depth = batch.inputs[self.depth][..., 0]
        near = depth >= self.farthest if self._near_is_high else depth <= self.farthest
        # A missing normal or depth compares false: nobody lands on what was not measured.
        safe = (up > self.level) & (sum_of_others < self.tilt) & near
        if self.semantics:
            safe &= batch.inputs[self.semantics][..., 0].astype(bool)
        return np.asarray(safe, np.uint8)[..., None]


class Confident(Expert):
    """Where a picture of agreement or probability `of` reaches `least`, 0 to 1: uint8 (H, W, 1), 0 or 1.

    `of` is one of 0 to 255, such as that of `vote_agreement`. Method: a threshold, as pseudo-labels are commonly
    filtered.
    """

    example: ClassVar[Mapping[str, Any]] = {"of": "vote_agreement"}

    def __init__(self, of: str, least: float = 0.66) -> None:
        if not 0 <= least <= 1:
            raise ExpertError(f"confident: a share of {least} makes no sense.", hint="0 <= least <= 1.")
        self.of, self.least = of, least

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.of,)

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        source = expect(inputs, self.of, Kind.IMAGE, "confident")
        if source.channels != 1:
            raise ExpertError(f"confident needs one channel, but {self.of!r} has {source.channels}.")
        return Modality(f"{self.of}_confident", Kind.MASK, 1, "uint8", (0, 1), truth=source.truth)

    def compute(self, batch: Batch) -> Array:
        # 2 of 3 is stored as 170 of 255: what rounds to the share counts as the share.
        return np.asarray(batch.inputs[self.of] >= np.floor(self.least * 255), np.uint8)


@cache
def groups() -> Mapping[str, Mapping[str, list[str]]]:
    """Classes by group and taxonomy, from `tables/groups.toml`."""
    return tomllib.loads((files("edgekit_experts") / "tables" / "groups.toml").read_text(encoding="utf-8"))
