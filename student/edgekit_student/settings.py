"""`train.toml`: what a person may say about a training, validated once. docs/training.md lists it all."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from edgekit_experts.files import read_text
from edgekit_experts.validation import first_fault, size_of
from edgekit_runtime.errors import UsageError

_PAGE = "docs/training.md lists all settings."


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_NETWORKS = (
    "edge-150k, -430k or -900k, made for latency (-150k-s2, -430k-s2, -900k-s2: finer answers); "
    "safeuav-150k, -430k, -1m or -4m, the papers'"
)
_BALANCE = Field(0.5, ge=0, le=1, description="classes weigh frequency^-balance: 0 as often as seen, 1 all alike")


_Missing = Annotated[
    Literal["raise", "drop", "mask"],
    Field(description="frames that lack a modality: raise an error, drop them, or mask what they lack"),
]


class Optimisation(_Table):
    """How a network is fitted: AdamW, linear warm-up, cosine decay, averaged weights (EMA)."""

    steps: int = Field(2000, ge=1, description="optimisation steps")
    batch: int = Field(8, ge=1, description="samples that are in memory at a time")
    accumulate: int = Field(1, ge=1, description="batches whose gradients make one step")
    learning_rate: float = Field(2e-3, gt=0, description="the highest, after the warm-up")
    weight_decay: float = Field(1e-2, ge=0, description="of AdamW")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    ema: float = Field(0.995, ge=0, lt=1, description="decay of the averaged weights, which are what is kept")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto", description="auto: bf16-mixed where the device computes it natively, else 32-true"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between two states that `--resume` can go on from")
    patience: int = Field(
        0, ge=0, description="end after so many validations on held-out frames without a better one; 0: never"
    )
    holdout: float = Field(0.1, gt=0, lt=1, description="share of the frames that `patience` holds out of the training")
    validate_every: int = Field(200, ge=1, description="steps between two validations, and between sample pictures")
    seed: int = Field(0, description="of everything random")


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if not 0 < ends[0] <= ends[1]:
        raise ValueError("the smallest comes first, and is above 0")
    return ends


class Augmentation(_Table):
    """Random crops of a random scale, mirrored at random; changes of colour, blur and noise touch RGB only."""

    crop: Annotated[tuple[int, int], BeforeValidator(size_of)] | None = Field(
        None, description="WIDTHxHEIGHT; else the whole frame. What lies outside of a frame mirrors it"
    )
    scale: Annotated[tuple[float, float], AfterValidator(_rising)] = Field(
        (0.75, 1.5), description="smallest and largest zoom"
    )
    mirror: bool = Field(True, description="mirror half of the samples")
    brightness: float = Field(0.25, ge=0, lt=1, description="largest change, as a share")
    contrast: float = Field(0.25, ge=0, lt=1, description="largest change, as a share")
    saturation: float = Field(0.25, ge=0, lt=1, description="largest change, as a share")
    hue: float = Field(0.0, ge=0, le=180, description="largest turn, in degrees")
    blur: float = Field(0.0, ge=0, le=10, description="largest Gaussian blur of half of the samples, sigma in pixels")
    noise: float = Field(0.0, ge=0, le=64, description="largest Gaussian noise, sigma in grey levels of 255")
    paste: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the samples with half of another frame's classes pasted in (ClassMix)",
    )


# The key that stands for all inputs without one of their own; no modality can have such a name.
OTHERS = "*"


def _probabilities(value: object) -> float | dict[str, float]:
    """A probability below 1, or a table of them by name."""
    if isinstance(value, dict):
        return {name: _probability(each) for name, each in value.items()}
    return _probability(value)


def _probability(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError("it must be a number from 0 to below 1, or a table of such numbers by input")
    return float(value)


class Masking(_Table):
    """Whole-modality masking: each input is hidden with probability `hide`, or all but `visible` of them are; at
    least one stays visible. Patches of what is visible may be hidden on top.
    """

    hide: Annotated[float | dict[str, float], PlainValidator(_probabilities)] = Field(
        0.5, description='how probable it is that an input is hidden; or a table by input, with `"*"` for the others'
    )
    visible: int | None = Field(None, ge=1, description="so many inputs are visible, exactly; instead of `hide`")
    always_visible: tuple[str, ...] = Field((), description="inputs that are never hidden")
    never_visible: tuple[str, ...] = Field((), description="inputs that always are: they can only be predicted")
    hide_start: float = Field(0.0, ge=0, lt=1, description="where the probability begins, if there is a `ramp`")
    ramp: float = Field(0.0, ge=0, le=1, description="share of the steps in which it goes from there to `hide`")
    patches: float = Field(0.0, ge=0, lt=1, description="share of the patches of each visible input that is hidden")
    patch_size: int = Field(16, ge=1, description="side of these square patches, in pixels")

    @model_validator(mode="after")
    def _consistent(self) -> Masking:
        if both := sorted({*self.always_visible} & {*self.never_visible}):
            raise ValueError(f"{', '.join(both)} cannot be both always_visible and never_visible")
        if isinstance(self.hide, dict) and (
            fixed := sorted({*self.hide} & {*self.always_visible, *self.never_visible})
        ):
            raise ValueError(f"hide names {', '.join(fixed)}, which always_visible or never_visible decide")
        if self.hide_start and not self.ramp:
            raise ValueError("hide_start says where a ramp begins, and there is none")
        if self.visible is None:
            return self
        if useless := [name for name in ("hide", "hide_start", "ramp") if name in self.model_fields_set]:
            raise ValueError(f"visible is instead of hide: take out {', '.join(useless)}")
        if len(self.always_visible) > self.visible:
            raise ValueError(f"always_visible names more than the {self.visible} inputs of visible")
        return self

    @model_serializer(mode="wrap")
    def _without_excluded(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What `visible` excludes is not written: what was written can be read again."""
        table: dict[str, Any] = serialize(self)
        if self.visible is None:
            return table
        return {key: value for key, value in table.items() if key not in ("hide", "hide_start", "ramp")}


class Ensemble(_Table):
    """`members` forward passes with random masks, averaged (the papers' NRand)."""

    members: int = Field(10, ge=1, description="random masks whose answers are averaged")
    mirror: bool = Field(True, description="average with the mirrored frame")
    aggregate: Literal["mean", "vote"] = Field(
        "mean", description="mean: of the members' probabilities; vote: the share of members that say a class"
    )
    select: int | None = Field(
        None, ge=1, description="so many of the masks, those that agree best with all, for every frame; else fresh ones"
    )

    @model_validator(mode="after")
    def _enough(self) -> Ensemble:
        if self.select is not None and self.select > self.members:
            raise ValueError(f"select is more than the {self.members} members that there are to choose from")
        return self


_START = Field("", description="folder of a checkpoint whose weights to begin with, where they fit")


class TrainSettings(_Table):
    """PHG-MAE: which modalities, which network, how long. Empty lists mean: all that were not labelled by people."""

    network: str = Field("edge-900k", description=_NETWORKS)
    inputs: tuple[str, ...] = Field((), description="modalities that it sees; else all automatic ones but the target")
    outputs: tuple[str, ...] = Field((), description="modalities that it predicts; else the inputs and the target")
    target: str = Field(
        "", description="the labels that students will learn; else `vote`, or the only labels, if `outputs` have any"
    )
    certainty: str = Field(
        "", description="modality that says how much each pixel of the target counts, such as `vote_agreement` makes"
    )
    start: str = _START
    missing: _Missing = "drop"
    losses: dict[str, str] = Field(
        default_factory=dict, description="by modality: l1, l2, scale-invariant, bce, focal, as its kind allows"
    )
    loss_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="by modality; else 1 for the target and 0.3 for the others"
    )
    weighting: Literal["fixed", "learned"] = Field(
        "fixed", description="learned: the weights of the losses only begin so, and follow their uncertainty"
    )
    class_balance: float = _BALANCE
    masking: Masking = Masking()
    augmentation: Augmentation = Augmentation()
    optimisation: Optimisation = Optimisation()


class DistillSettings(_Table):
    """The student: which network, what it learns, how long, and how the ensemble that teaches it is formed."""

    network: str = Field("edge-430k", description=_NETWORKS)
    outputs: tuple[str, ...] = Field((), description="what it learns, each a head: the target, and depth, normals, …")
    certainty: str = Field(
        "", description="modality that says how much each pixel of the target counts, such as `vote_agreement` makes"
    )
    start: str = _START
    by_class: float = Field(
        0.0, ge=0, le=1, description="share of the frames that are drawn for a class, each class as often as any other"
    )
    missing: _Missing = "drop"
    loss_weights: dict[str, float] = Field(
        default_factory=dict, description="by output; else 1 for labels and 0.3 for the others"
    )
    temperature: float = Field(1.0, gt=0, description="above 1 flattens what the ensemble says, below sharpens it")
    temporal: float = Field(
        0.0, ge=0, description="how much it counts that consecutive frames agree along optical flow; 0: nothing"
    )
    class_balance: float = _BALANCE
    ensemble: Ensemble = Ensemble()
    augmentation: Augmentation = Augmentation()
    optimisation: Optimisation = Optimisation()


Settings = TypeVar("Settings", TrainSettings, DistillSettings)
_SECTIONS: dict[str, type[BaseModel]] = {"train": TrainSettings, "distill": DistillSettings}


def read_settings(kind: type[Settings], path: Path | None, **overrides: Any) -> Settings:
    """The settings of a TOML file (its `[train]` or `[distill]` table, else the whole), then the overrides.

    Both tables are checked where there are both: hours later would be late for a slip in the other one. Raises
    UsageError that names the key at fault, with the nearest known one.
    """
    table: dict[str, Any] = {}
    section = ""
    if path is not None:
        try:
            table = tomllib.loads(read_text(path, "The settings", UsageError, f"Check the path; {_PAGE}"))
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path} is not valid TOML: {error}.", hint="See https://toml.io.") from error
        if table.keys() & _SECTIONS.keys():
            whole, section = table, "train" if kind is TrainSettings else "distill"
            for name, found in whole.items():
                if not isinstance(found, dict) and name in _SECTIONS:
                    raise UsageError(f"{path}: {name} must be a table, [{name}].", hint=_PAGE)
                if name not in _SECTIONS:
                    raise UsageError(f"{path}: there is no table {name!r} here.", hint=f"[train] or [distill]? {_PAGE}")
                if name != section:
                    _validated(_SECTIONS[name], found, path, name)
            table = whole.get(section, {})
    for key, value in overrides.items():
        if value is not None:
            _put(table, key.split("__"), value)
    return _validated(kind, table, path, section)


_Model = TypeVar("_Model", bound=BaseModel)


def _validated(kind: type[_Model], table: dict[str, Any], path: Path | None, section: str) -> _Model:
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        raise _explain(kind, error, path, section) from error


def differences(before: Mapping[str, Any], now: Mapping[str, Any], under: str = "") -> list[str]:
    """What two tables of settings do not share, in words: `optimisation.patience was 3, is 0`."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        was, is_ = before.get(key), now.get(key)
        if isinstance(was, dict) and isinstance(is_, dict):
            found += differences(was, is_, f"{under}{key}.")
        elif was != is_:
            found.append(f"{under}{key} was {was}, is {is_}")
    return found


def _put(table: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            return  # which validation will not let pass
    table[keys[-1]] = value


def _explain(kind: type[BaseModel], error: ValidationError, path: Path | None, section: str) -> UsageError:
    first = error.errors()[0]
    where = f"{path}: " if path else ""
    where += f"[{section}] " if section else ""
    if first["type"] != "extra_forbidden":
        return UsageError(f"{where}{first_fault(error)}.", hint=_PAGE)
    *parents, key = [str(part) for part in first["loc"]]
    model: Any = kind
    for parent in parents:
        model = model.model_fields[parent].annotation
    tables = [] if section or parents else list(_SECTIONS)
    close = get_close_matches(key, [*model.model_fields, *tables], n=1)
    suggestion = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(model.model_fields)}."
    return UsageError(f"{where}there is no setting {'.'.join([*parents, key])!r}.", hint=f"{suggestion} {_PAGE}")
