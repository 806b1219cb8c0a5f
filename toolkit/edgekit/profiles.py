"""Device profiles: what a build aims at, one TOML file per class of device.

A profile may inherit from another one and state only what differs. Profiles are found by name among those that
come with edgekit; a path to a `.toml` file is a profile of one's own.
"""

from __future__ import annotations

import math
import platform
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from edgekit.machine import board_name
from edgekit.targets import CPU, TENSORRT, Hint, Precision, Target, absent, target_of
from edgekit_experts.files import read_text
from edgekit_experts.validation import first_fault, line_of, size_of, written
from edgekit_runtime.errors import ProfileError

Size = tuple[int, int]
SMALLEST_SIDE, LARGEST_SIDE = 32, 8192
_WRITTEN = f"WIDTHxHEIGHT such as 960x544, with sides from {SMALLEST_SIDE} to {LARGEST_SIDE}"
# Smaller inputs have no side below this share of the input's: what was four pixels wide is then less than one.
LEAST_SHARE = 1 / 4


def _size(value: object) -> Size:
    with suppress(ValueError):
        size = size_of(value)
        if isinstance(size, tuple | list) and [type(side) for side in size] == [int, int]:
            height, width = size
            if all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in (height, width)):
                return height, width
    raise ValueError(f"it must be {_WRITTEN}")


def _network_size(value: object) -> str | Size:
    if isinstance(value, str) and value in ("student", "input"):
        return value
    with suppress(ValueError):
        return _size(value)
    raise ValueError(f'it must be "student", "input", or {_WRITTEN}')


_Size = Annotated[Size, BeforeValidator(_size)]
_Target = Annotated[Target, BeforeValidator(target_of), PlainSerializer(str)]


class Machine(BaseModel):
    """What a profile is made for, empty where it does not matter: systems (Linux, Darwin, Windows), architectures as
    Python calls them (x86_64, AMD64, aarch64, arm64), and a part of the board's name, or several: `A or B`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    systems: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    board: str = ""

    def mismatch(self) -> str:
        """Why this machine is another one; empty when it is not."""
        if not any(part in board_name() for part in self.board.split(" or ")):
            return f"this machine is no {self.board}"
        for here, wanted in ((platform.system(), self.systems), (platform.machine(), self.architectures)):
            if wanted and here not in wanted:
                return f"this machine is {here}"
        return ""

    @property
    def conditions(self) -> int:
        return sum(map(bool, (self.systems, self.architectures, self.board)))


class Camera(BaseModel):
    """What cameras are asked for on the device; empty leaves the driver's choice."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Annotated[str, written(r"(\d{2,4}x\d{2,4})?", "a size is WIDTHxHEIGHT, such as 1280x720")] = ""
    fps: Annotated[float, Field(ge=0, le=1000)] = 0
    format: Annotated[str, written(r"([A-Za-z0-9]{4})?", "a format has four letters, such as MJPG")] = ""

    @property
    def options(self) -> dict[str, str]:
        """As a manifest has them."""
        told = {"size": self.size, "fps": f"{self.fps:g}" if self.fps else "", "format": self.format}
        return {key: value for key, value in told.items() if value}


class Display(BaseModel):
    """How results are shown at first: `opacity` of the class colours, `depth` where there is some beside labels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    opacity: Annotated[float, Field(ge=0, le=1)] = 0.5
    depth: bool = False


class Profile(BaseModel):
    """A validated profile; see `device_profiles/generic-cpu.toml`.

    Sizes are (height, width) in pixels here, and WIDTHxHEIGHT in the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    target: _Target
    fallbacks: tuple[_Target, ...]
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)]
    input_size: _Size
    network_size: Annotated[Literal["student", "input"] | Size, BeforeValidator(_network_size)]
    smaller_inputs: tuple[_Size, ...] = ()
    label_stride: Literal[1, 2, 4, 8]
    threads: Annotated[int, Field(ge=0, le=1024)]
    spinning: bool
    hint: Hint
    allowed_drop_points: Annotated[float, Field(ge=0, le=100)]
    allowed_depth_error_percent: Annotated[float, Field(ge=0, le=100)]
    min_agreement: Annotated[float, Field(ge=0, le=1)]
    calibration_frames: Annotated[int, Field(ge=1, le=4096)]
    judged_frames: Annotated[int, Field(ge=1, le=4096)]
    target_fps: Annotated[float, Field(gt=0)]
    compute_capabilities: tuple[Annotated[str, written(r"\d+\.\d", 'one is written as "8.6"')], ...] = ()
    machine: Machine = Machine()
    camera: Camera = Camera()
    display: Display = Display()
    power: str = ""
    doctor: tuple[str, ...] = ()

    @field_validator("smaller_inputs")
    @classmethod
    def _descend(cls, sizes: tuple[Size, ...], info: ValidationInfo) -> tuple[Size, ...]:
        told = info.data  # without what is wrong itself
        if sizes and isinstance(told.get("network_size"), tuple):
            raise ValueError('they say what the network sees: network_size must be "student" or "input"')
        if sizes and "target" in told and told["target"].engine in TENSORRT:
            raise ValueError("they are for OpenVINO and ONNX Runtime")
        largest = told.get("input_size", (math.inf, math.inf))
        for larger, size in pairwise([largest, *sizes]):
            if not (size[0] < larger[0] and size[1] < larger[1]):
                raise ValueError("each must be smaller than the one before, the first than input_size")
        if "input_size" in told:
            height, width = (math.ceil(LEAST_SHARE * side) for side in largest)
            if sizes and (sizes[-1][0] < height or sizes[-1][1] < width):
                raise ValueError(
                    f"below {width}x{height}, a quarter of input_size, too little is left of a picture to recognise"
                )
        return sizes

    def at(self, size: Size) -> Profile:
        """The same for frames of another size, which the network then sees as they are."""
        return self.model_copy(update={"input_size": size, "network_size": "input", "smaller_inputs": ()})

    @property
    def targets(self) -> tuple[Target, ...]:
        """What the profile is for, then what is carried along for machines without that."""
        return tuple(dict.fromkeys((self.target, *self.fallbacks)))

    def ladder(self, target: Target) -> tuple[Precision, ...]:
        """The precisions to try on a target: the profile's, as far as there is a form for them."""
        return tuple(precision for precision in self.precisions if precision in target.precisions)

    def missing(self, target: Target | None = None) -> str:
        """Why figures of this machine would not be those of the profile's; empty when they are.

        Of a `target`, else of what the profile is for.
        """
        return self.machine.mismatch() or absent(target or self.target)


def profile_names() -> tuple[str, ...]:
    """Names of the profiles that come with edgekit."""
    return tuple(sorted(path.stem for path in _shipped_folder().glob("*.toml")))


def detect() -> tuple[Profile, list[Profile]]:
    """The profile that fits this machine best, and all that it can run.

    Of those that can, the one that says most about its machine; then one for a device beside the CPU; then the order
    of their engines: NVIDIA's GPUs are faster than what a processor has within, and OpenVINO than ONNX Runtime.
    """
    able = [profile for profile in map(load_profile, profile_names()) if not profile.missing()]
    if not able:
        raise ProfileError("No profile can be run here.", hint="`edgekit doctor` says what is missing.")

    def fit(profile: Profile) -> tuple[int, bool, bool, bool]:
        target = profile.target
        return (
            profile.machine.conditions,
            target.device != CPU,
            target.engine in TENSORRT,
            target.engine == "openvino",
        )

    return max(able, key=fit), able


def load_profile(name: str | Path) -> Profile:
    """A shipped profile by name, or one's own by path. Raises ProfileError: unknown, or wrong in line so-and-so."""
    path = _locate(str(name))
    table, layers = _inherit(path, ())
    try:
        return Profile.model_validate({**table, "name": path.stem})
    except ValidationError as error:
        raise _explain(error, layers) from error


@dataclass(frozen=True)
class _Layer:
    """One file of an inheritance chain."""

    path: Path
    text: str
    table: dict[str, Any]

    def line(self, *keys: str) -> int | None:
        """The line, counted from 1, of the innermost of the keys that is set."""
        return line_of(self.text, *keys)


def _inherit(path: Path, chain: tuple[Path, ...]) -> tuple[dict[str, Any], tuple[_Layer, ...]]:
    """The merged table and the files that it comes from, most specific first."""
    if path in chain:
        circle = " -> ".join(str(each) for each in (*chain[chain.index(path) :], path))
        raise ProfileError(
            f"Profiles inherit from each other in a circle: {circle}.", hint="Take `inherits` out of one of them."
        )
    layer = _read(path)
    parent = layer.table.pop("inherits", None)
    if parent is None:
        return layer.table, (layer,)
    if not isinstance(parent, str):
        raise ProfileError(f"{path}, line {layer.line('inherits')}: inherits must be the name of a profile.")
    beside = path.parent / f"{parent}.toml"
    table, layers = _inherit(beside if beside.is_file() else _locate(parent), (*chain, path))
    return _merged(table, layer.table), (layer, *layers)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key, everything else is replaced."""
    result = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            result[key] = _merged(below[key], above[key])
    return result


def _read(path: Path) -> _Layer:
    text = read_text(path, "The profile", ProfileError)
    try:
        return _Layer(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{path} is not valid TOML: {error}.") from error


def _locate(name: str) -> Path:
    if name.endswith(".toml") or "/" in name or "\\" in name:
        path = Path(name)
        if not path.is_file():
            raise ProfileError(f"There is no profile file {path}.", hint="`edgekit profiles` lists those by name.")
        return path.resolve()
    path = _shipped_folder() / f"{name}.toml"
    if name not in profile_names():
        close = get_close_matches(name, profile_names(), n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ProfileError(
            f"There is no device profile {name!r}.", hint=f"{hint}There are: {', '.join(profile_names())}."
        )
    return path


def _shipped_folder() -> Path:
    """Inside the installed package; in a checkout, at the top of the repository."""
    packaged = Path(__file__).parent / "device_profiles"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "device_profiles"


def _explain(error: ValidationError, layers: tuple[_Layer, ...]) -> ProfileError:
    """The first fault, with file, line and the closest known key."""
    fault = error.errors(include_url=False)[0]
    key, *inside = (str(part) for part in fault["loc"])
    layer = next((layer for layer in layers if key in layer.table), layers[0])
    line = layer.line(key, *inside)
    where = f"{layer.path}, line {line}" if line else str(layer.path)
    if fault["type"] == "extra_forbidden":
        tables: dict[str, type[BaseModel]] = {"machine": Machine, "camera": Camera, "display": Display}
        fields = (tables[key] if inside else Profile).model_fields
        close = get_close_matches((inside or [key])[-1], fields, n=1)
        known = ", ".join(name for name in fields if name != "name")
        hint = f"Did you mean {close[0]!r}?" if close else f"Known keys: {known}."
        return ProfileError(f"{where}: there is no setting {'.'.join([key, *inside])!r} in a profile.", hint=hint)
    if fault["type"] == "missing" and not inside:
        return ProfileError(
            f"{where}: {key} is not set.", hint='Set it, or start the profile with inherits = "generic-cpu".'
        )
    # What is inherited may be wrong only beside what this profile says itself.
    hint = "" if layer is layers[0] else f"It is inherited: set {key} in {layers[0].path}."
    return ProfileError(f"{where}: {first_fault(error)}.", hint=hint)
