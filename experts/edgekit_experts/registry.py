"""Experts by name: built-ins, installed plug-ins (entry points), or a class in a file.

expert = "canny"                    # a built-in
expert = "my_depth"                 # the entry point of that name in the group `edgekit.experts`
expert = "experts/mine.py:Sharpen"  # a class in a file
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from edgekit_experts.dataset.names import closest
from edgekit_experts.expert import Expert
from edgekit_experts.validation import parameter_fault
from edgekit_runtime.errors import EdgekitError, ExpertError

GROUP = "edgekit.experts"

BUILTIN: Mapping[str, str] = {
    "rgb": "edgekit_experts.classical.colour:Rgb",
    "hsv": "edgekit_experts.classical.colour:Hsv",
    "canny": "edgekit_experts.classical.edges:Canny",
    "gradients": "edgekit_experts.classical.edges:Gradients",
    "dis_flow": "edgekit_experts.classical.flow:DisFlow",
    "farneback_flow": "edgekit_experts.classical.flow:FarnebackFlow",
    "soft_segmentation": "edgekit_experts.classical.softseg:SoftSegmentation",
    "generalised_boundaries": "edgekit_experts.classical.softseg:GeneralisedBoundaries",
    "superpixels": "edgekit_experts.classical.softseg:Superpixels",
    "halftone": "edgekit_experts.classical.softseg:Halftone",
    "key_points": "edgekit_experts.classical.features:KeyPoints",
    "normals": "edgekit_experts.classical.normals:Normals",
    "label_map": "edgekit_experts.classical.labels:LabelMap",
    "jury_verdict": "edgekit_experts.classical.labels:JuryVerdict",
    "majority_vote": "edgekit_experts.classical.labels:MajorityVote",
    "vote_agreement": "edgekit_experts.classical.labels:VoteAgreement",
    "temporal_median": "edgekit_experts.classical.labels:TemporalMedian",
    "class_mask": "edgekit_experts.classical.masks:ClassMask",
    "nearby": "edgekit_experts.classical.masks:Nearby",
    "safe_landing": "edgekit_experts.classical.masks:SafeLanding",
    "confident": "edgekit_experts.classical.masks:Confident",
    "parallax_depth": "edgekit_experts.classical.parallax:ParallaxDepth",
    "model": "edgekit_experts.learned.model:Model",
    "pretrained_depth": "edgekit_experts.learned.pretrained:PretrainedDepth",
    "pretrained_labels": "edgekit_experts.learned.pretrained:PretrainedLabels",
    "pretrained_masks": "edgekit_experts.learned.masks:PretrainedMasks",
    "marigold_depth": "edgekit_experts.learned.marigold:MarigoldDepth",
    "raft_flow": "edgekit_experts.learned.raft:RaftFlow",
    "bundle": "edgekit_experts.learned.bundle:BundleModel",
    "given": "edgekit_experts.classical.given:Given",
    "simulated_sharp": "edgekit_experts.simulated:SimulatedSharp",
    "simulated_smooth": "edgekit_experts.simulated:SimulatedSmooth",
    "simulated_sloppy": "edgekit_experts.simulated:SimulatedSloppy",
    "simulated_depth": "edgekit_experts.simulated:SimulatedDepth",
}


@dataclass(frozen=True)
class Registered:
    """A class, the name that goes into the data set, and a digest of its file where it is no part of a package."""

    name: str
    cls: type[Expert]
    digest: str = ""

    def build(self, params: Mapping[str, Any]) -> tuple[Expert, dict[str, Any]]:
        """The expert and all its parameters, defaults included. Raises ExpertError that names the parameter."""
        signature = inspect.signature(self.cls)
        known = {
            parameter.name: parameter
            for parameter in signature.parameters.values()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        }
        for key in params:
            if key not in known:
                raise ExpertError(
                    f"The expert {self.name!r} has no parameter {key!r}.",
                    hint=closest(key, known) or "It has none.",
                )
        for key, parameter in known.items():
            if parameter.default is parameter.empty and key not in params:
                raise ExpertError(f"The expert {self.name!r} needs the parameter {key!r}.", hint=self.usage())
        for key, value in params.items():
            if fault := parameter_fault(self.cls.__init__, key, value):
                raise ExpertError(
                    f"The expert {self.name!r}: {fault}.", hint=f"It is declared as `{_declared(known[key])}`."
                )
        defaults = {key: p.default for key, p in known.items() if p.default is not p.empty}
        complete = {**defaults, **params}
        try:
            return self.cls(**params), complete
        except EdgekitError:
            raise
        except (TypeError, ValueError) as error:
            raise ExpertError(f"The expert {self.name!r}: {error}.", hint=self.usage()) from error

    def usage(self) -> str:
        """Its parameters: `canny(low: float = 60.0, high: float = 150.0, sigma: float = 1.0)`."""
        return f"{self.name}({', '.join(map(_declared, inspect.signature(self.cls).parameters.values()))})"

    def summary(self) -> str:
        """First sentence of its docstring."""
        lines = inspect.getdoc(self.cls) or ""
        return lines.partition("\n\n")[0].replace("\n", " ")


def _declared(parameter: inspect.Parameter) -> str:
    """As its author wrote it; `inspect` puts annotations that were not evaluated into quotes."""
    written = parameter.annotation
    kind = "" if written is parameter.empty else f": {written if isinstance(written, str) else written.__name__}"
    return f"{parameter.name}{kind}{'' if parameter.default is parameter.empty else f' = {parameter.default!r}'}"


def names() -> list[str]:
    """Built-ins and plug-ins, in alphabetical order."""
    return sorted({*BUILTIN, *(point.name for point in entry_points(group=GROUP))})


def find_expert(spec: str) -> Registered:
    """Raises ExpertError for an unknown name (with the most similar one), file or class."""
    if ".py:" in spec:
        return _from_file(spec)
    if spec in BUILTIN:
        module, _, attribute = BUILTIN[spec].partition(":")
        return Registered(spec, getattr(importlib.import_module(module), attribute))
    for point in entry_points(group=GROUP, name=spec):
        try:
            return Registered(spec, _checked(point.load(), spec))
        except (ImportError, AttributeError) as error:
            raise ExpertError(
                f"The plug-in expert {spec!r} ({point.value}) cannot be loaded: {error}.",
                hint="Reinstall the package that brings it.",
            ) from error
    hint = f'A class in a file is written "{spec}:Class".' if spec.endswith(".py") else closest(spec, names())
    raise ExpertError(f"There is no expert {spec!r}.", hint=hint)


def _from_file(spec: str) -> Registered:
    found, digest = from_file(spec)
    file, _, attribute = spec.rpartition(":")
    return Registered(f"{Path(file).name}:{attribute}", _checked(found, spec), digest)


def from_file(spec: str) -> tuple[object, str]:
    """What `path/to/file.py:name` names, and a digest of the file. Raises ExpertError."""
    file, _, attribute = spec.rpartition(":")
    path = Path(file)
    try:
        code = path.read_bytes()
    except OSError as error:
        raise ExpertError(f"{path} cannot be read: {error.strerror}.", hint="Check the path.") from error
    module_spec = importlib.util.spec_from_file_location(f"edgekit_user_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise ExpertError(f"{path} cannot be imported: {type(error).__name__}: {error}.") from error
    if not hasattr(module, attribute):
        names = [name for name in vars(module) if not name.startswith("_")]
        raise ExpertError(f"{path} has no {attribute!r}.", hint=closest(attribute, names))
    return getattr(module, attribute), hashlib.sha256(code).hexdigest()[:16]


def _checked(cls: object, spec: str) -> type[Expert]:
    if not (isinstance(cls, type) and issubclass(cls, Expert)):
        raise ExpertError(
            f"{spec!r} is not an expert.", hint="It must be a class derived from edgekit_experts.expert.Expert."
        )
    return cls
