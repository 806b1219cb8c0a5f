"""What a network in a file takes and what it answers, as a person declares it in TOML beside the file.

[input]
size = "640x352"                 # where the file leaves it open; else the profile's
colour = "rgb"                   # or "bgr"
mean = [123.7, 116.3, 103.5]     # (x - mean) / std, x from 0 to 255
std = [58.4, 57.1, 57.4]
layout = "nchw"                  # or "nhwc"

[labels]                         # logits, or class ids
output = "logits"                # the name or the number of the output; else the first
taxonomy = "cityscapes"          # or the path of a .toml, or classes = ["road", "sky"]

[depth]                          # value * scale + offset, in `unit`
output = 1
unit = "m"
range = [0.0, 80.0]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from edgekit_experts.files import read_text
from edgekit_experts.taxonomies import find_taxonomy, numbered_colours
from edgekit_experts.validation import first_fault, line_of, size_of
from edgekit_runtime.errors import BuildError, ExpertError
from edgekit_runtime.modality import Kind, Modality, Taxonomy

_Side = Annotated[int, Field(ge=16, le=8192)]
_Size = Annotated[tuple[_Side, _Side], BeforeValidator(size_of)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Triple = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


def _output(value: object) -> int | str:
    if (type(value) is int and value >= 0) or (isinstance(value, str) and value):
        return value
    raise ValueError("an output is named, or numbered from 0")


_Output = Annotated[int | str, BeforeValidator(_output)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSignature(_Table):
    """The picture as the network takes it; `size` is (height, width), `mean` and `std` are in the order of `colour`."""

    size: _Size | None = None
    colour: Literal["rgb", "bgr"] = "rgb"
    mean: _Triple = (0.0, 0.0, 0.0)
    std: tuple[_Positive, _Positive, _Positive] = (255.0, 255.0, 255.0)
    layout: Literal["nchw", "nhwc"] = "nchw"


class LabelsSignature(_Table):
    """An output with a channel for each class, or with class ids."""

    output: _Output = 0
    taxonomy: str | None = None
    classes: Annotated[tuple[str, ...], Field(min_length=1, max_length=255)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.taxonomy is None) == (self.classes is None):
            raise ValueError("labels need either a taxonomy or a list of classes")
        return self


class DepthSignature(_Table):
    """An output with one channel. What comes out is value * `scale` + `offset` in `unit`, kept within `range`."""

    output: _Output = 0
    unit: Literal["m", "1/m", "relative depth", "relative inverse depth"]
    scale: FiniteFloat = 1.0
    offset: FiniteFloat = 0.0
    range: tuple[FiniteFloat, FiniteFloat] | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError("the first of the range must be below the second")
        return self


class ModelSignature(_Table):
    """A validated signature. `weights`, of torch modules, is the path of their safetensors."""

    input: InputSignature = InputSignature()
    labels: LabelsSignature | None = None
    depth: DepthSignature | None = None
    weights: Path | None = None

    @model_validator(mode="after")
    def _answers_something(self) -> Self:
        if self.labels is None and self.depth is None:
            raise ValueError("neither [labels] nor [depth] says what the network answers")
        return self

    @property
    def outputs(self) -> dict[str, tuple[int | str, Modality]]:
        """The outputs of the network that are wanted, and what they mean, by the names that they have in a bundle.

        Raises ExpertError for an unknown taxonomy.
        """
        found: dict[str, tuple[int | str, Modality]] = {}
        if self.labels:
            found["labels"] = self.labels.output, Modality("labels", Kind.LABELS, taxonomy=_taxonomy(self.labels))
        if self.depth:
            unit, span = self.depth.unit, self.depth.range
            found["depth"] = self.depth.output, Modality("depth", Kind.DEPTH, 1, "float32", span, unit)
        return found

    def told(self) -> dict[str, Any]:
        """For the manifest, without the paths of this machine; the outputs have their taxonomy themselves."""
        return self.model_dump(mode="json", exclude={"weights": True, "labels": {"taxonomy"}}, exclude_none=True)


def _taxonomy(labels: LabelsSignature) -> Taxonomy:
    if labels.taxonomy is not None:
        return find_taxonomy(labels.taxonomy)
    assert labels.classes is not None
    return Taxonomy("classes", labels.classes, numbered_colours(len(labels.classes)))


def read_signature(path: Path) -> ModelSignature:
    """Reads and checks a signature; paths in it are relative to its folder.

    Raises BuildError that says which line is wrong and what may have been meant, ExpertError for an unknown taxonomy.
    """
    text = read_text(path, "The signature", BuildError)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BuildError(f"{path} is not valid TOML: {error}.") from error
    try:
        signature = ModelSignature.model_validate(_located(table, path.parent))
        signature.outputs  # noqa: B018  (an unknown taxonomy, or a class that is named twice, is a fault of this file)
    except ValidationError as error:
        raise _explain(error, path, text) from error
    except (ValueError, ExpertError) as error:
        hint = error.hint if isinstance(error, ExpertError) else ""
        raise BuildError(f"{_where(path, text, ['labels', 'taxonomy'])}: {_sentence(error)}", hint=hint) from error
    return signature


def _located(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The table with its paths as they are found from here."""
    found = dict(table)
    if isinstance(weights := table.get("weights"), str):
        found["weights"] = folder / weights
    labels = table.get("labels")
    if isinstance(labels, Mapping) and str(labels.get("taxonomy", "")).endswith(".toml"):
        found["labels"] = {**labels, "taxonomy": str(folder / str(labels["taxonomy"]))}
    return found


def _explain(error: ValidationError, path: Path, text: str) -> BuildError:
    """The first fault, with file, line and the closest known key."""
    fault = error.errors(include_url=False)[0]
    keys = [str(part) for part in fault["loc"]]
    where = _where(path, text, keys)
    if fault["type"] == "extra_forbidden":
        tables: dict[str, type[BaseModel]] = {
            "input": InputSignature,
            "labels": LabelsSignature,
            "depth": DepthSignature,
        }
        fields = (tables[keys[0]] if len(keys) > 1 else ModelSignature).model_fields
        close = get_close_matches(keys[-1], fields, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(fields)}."
        return BuildError(f"{where}: there is no setting {'.'.join(keys)!r} in a signature.", hint=hint)
    return BuildError(f"{where}: {first_fault(error)}.")


def _where(path: Path, text: str, keys: list[str]) -> str:
    line = line_of(text, *keys)
    return f"{path}, line {line}" if line else str(path)


def _sentence(error: Exception) -> str:
    said = str(error.args[0])
    return said if said.endswith(".") else f"{said}."
