"""Device profiles: what a build aims at, one TOML file per class of device.

A profile may inherit from another one and state only what differs. Profiles are found by name among those that
come with edgekit; a path to a `.toml` file is a profile of one's own.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from edgekit_experts.validation import first_fault, size_of
from edgekit_runtime.errors import ProfileError
from edgekit_runtime.files import read_text

EngineName = Literal["openvino", "onnxruntime"]
Precision = Literal["int8", "bf16", "fp32"]
_Side = Annotated[int, Field(ge=32, le=8192)]
Size = Annotated[tuple[_Side, _Side], BeforeValidator(size_of)]

# Precisions that an engine has a form for.
PRECISIONS: dict[EngineName, tuple[Precision, ...]] = {
    "openvino": ("int8", "bf16", "fp32"),
    "onnxruntime": ("int8", "fp32"),
}


class Profile(BaseModel):
    """A validated profile; see `device_profiles/generic-cpu.toml`.

    Sizes are (height, width) in pixels here, and WIDTHxHEIGHT in the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    engine: EngineName
    device: Literal["CPU"]
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)]
    input_size: Size
    network_size: Literal["student", "input"] | Size
    label_stride: Literal[1, 2, 4, 8]
    threads: Annotated[int, Field(ge=0, le=1024)]
    allowed_drop_points: Annotated[float, Field(ge=0, le=100)]
    allowed_depth_error_percent: Annotated[float, Field(ge=0, le=100)]
    min_agreement: Annotated[float, Field(ge=0, le=1)]
    calibration_frames: Annotated[int, Field(ge=1, le=4096)]
    judged_frames: Annotated[int, Field(ge=1, le=4096)]
    target_fps: Annotated[float, Field(gt=0)]
    fallback_engine: EngineName | None = None

    @property
    def engines(self) -> tuple[EngineName, ...]:
        """The engine that the profile is for and, if there is one, the fallback."""
        if self.fallback_engine is None or self.fallback_engine == self.engine:
            return (self.engine,)
        return (self.engine, self.fallback_engine)

    def ladder(self, engine: EngineName) -> tuple[Precision, ...]:
        """The precisions to try on an engine: the profile's, as far as the engine has them."""
        return tuple(precision for precision in self.precisions if precision in PRECISIONS[engine])

    def missing_engine(self) -> str:
        """Why this machine cannot run the profile; empty when it can."""
        return "" if find_spec(self.engine) else f"{self.engine} is not installed"


def profile_names() -> tuple[str, ...]:
    """Names of the profiles that come with edgekit."""
    return tuple(sorted(path.stem for path in _shipped_folder().glob("*.toml")))


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

    def line(self, key: str) -> int | None:
        """The line, counted from 1, where a key is set."""
        for number, line in enumerate(self.text.splitlines(), start=1):
            if re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", line) or line.strip() == f"[{key}]":
                return number
        return None


def _inherit(path: Path, chain: tuple[Path, ...]) -> tuple[dict[str, Any], tuple[_Layer, ...]]:
    """The merged table and the files that it comes from, most specific first."""
    if path in chain:
        raise ProfileError(f"{path}: the profile inherits from itself.")
    layer = _read(path)
    parent = layer.table.pop("inherits", None)
    if parent is None:
        return layer.table, (layer,)
    if not isinstance(parent, str):
        raise ProfileError(f"{path}, line {layer.line('inherits')}: inherits must be the name of a profile.")
    beside = path.parent / f"{parent}.toml"
    table, layers = _inherit(beside if beside.is_file() else _locate(parent), (*chain, path))
    return {**table, **layer.table}, (layer, *layers)


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
    key = str(fault["loc"][0])
    layer = next((layer for layer in layers if key in layer.table), layers[0])
    line = layer.line(key)
    where = f"{layer.path}, line {line}" if line else str(layer.path)
    if fault["type"] == "extra_forbidden":
        close = get_close_matches(key, Profile.model_fields, n=1)
        known = ", ".join(name for name in Profile.model_fields if name != "name")
        hint = f"Did you mean {close[0]!r}?" if close else f"Known keys: {known}."
        return ProfileError(f"{where}: there is no setting {key!r} in a profile.", hint=hint)
    if fault["type"] == "missing":
        return ProfileError(
            f"{where}: {key} is not set.", hint='Set it, or start the profile with inherits = "generic-cpu".'
        )
    return ProfileError(f"{where}: {first_fault(error)}.")
