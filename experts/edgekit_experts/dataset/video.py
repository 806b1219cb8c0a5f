"""One video of a data set: its facts, its modalities, and which of their frames are there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset.array import ATTRIBUTES, METADATA, ModalityArray
from edgekit_experts.dataset.declaration import Declaration
from edgekit_experts.dataset.names import check_name, closest
from edgekit_experts.dataset.storage import Storage
from edgekit_runtime.errors import DataError
from edgekit_runtime.modality import Modality

Array = npt.NDArray[Any]

SPLITS = ("train", "val", "test")
UNIT_FRAMES = 32
UNIT_BYTES = 64 << 20  # of RGB: bounds what is in memory for one unit, whatever the resolution


@dataclass(frozen=True)
class VideoInfo:
    """`size` is (height, width), `fps` the mean frame rate. `counted` says that the video was read to its end,
    so that `frames` is no longer what its header claims. `source` tells where it came from: `uri`, and
    `fingerprint`, which differs for different content. `unit` is the number of frames of a work unit.
    """

    frames: int
    size: tuple[int, int]
    fps: float
    split: str = "train"
    source: Mapping[str, str] = field(default_factory=dict)
    counted: bool = True
    unit: int = UNIT_FRAMES

    def to_json(self) -> bytes:
        table = {"zarr_format": 3, "node_type": "group", "attributes": {ATTRIBUTES: asdict(self)}}
        return json.dumps(table, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> VideoInfo:
        """Reads what `to_json` wrote; raises ValueError on anything malformed."""
        try:
            table = json.loads(data)["attributes"][ATTRIBUTES]
            height, width = table["size"]
            return cls(
                frames=int(table["frames"]),
                size=(int(height), int(width)),
                fps=float(table["fps"]),
                split=str(table["split"]),
                source={str(key): str(value) for key, value in table["source"].items()},
                counted=bool(table["counted"]),
                unit=int(table["unit"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"malformed video: {error}") from error


def unit_frames(size: tuple[int, int]) -> int:
    """Frames of a work unit for a frame size (height, width): 32, fewer where frames are large."""
    unit = UNIT_FRAMES
    while unit > 1 and unit * size[0] * size[1] * 3 > UNIT_BYTES:
        unit //= 2
    return unit


class Video:
    """Opened by `Dataset.video`. Frames are numbered from 0 in the order in which they are shown."""

    def __init__(self, storage: Storage, name: str, info: VideoInfo) -> None:
        self.name = name
        self.info = info
        self._storage = storage
        self._arrays: dict[str, ModalityArray] | None = None

    @property
    def frames(self) -> int:
        return self.info.frames

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame."""
        return self.info.size

    @property
    def fps(self) -> float:
        return self.info.fps

    @property
    def split(self) -> str:
        return self.info.split

    @property
    def modalities(self) -> dict[str, Modality]:
        """What is declared, by name, whether or not any frame of it is done."""
        return {name: array.declaration.modality for name, array in self.arrays.items()}

    @property
    def arrays(self) -> Mapping[str, ModalityArray]:
        if self._arrays is None:
            prefixes = {name: f"{self.name}/{name}" for name in self._storage.list(self.name) if name != METADATA}
            found = self._storage.get_many(f"{prefix}/{METADATA}" for prefix in prefixes.values())
            self._arrays = {
                name: ModalityArray.parse(self._storage, prefix, found[f"{prefix}/{METADATA}"])
                for name, prefix in prefixes.items()
                if f"{prefix}/{METADATA}" in found
            }
        return self._arrays

    def done(self, modality: str) -> Array:
        """bool (F,): frames that are on the disk and not stale."""
        array = self._array(modality)
        return np.zeros(self.frames, bool) if self.outdated(modality) else array.recorded()[0]

    def stale(self, modality: str) -> Array:
        """bool (F,): frames that are on the disk, but made with other parameters or from other inputs."""
        done, old = self._array(modality).recorded()
        return (done | old) if self.outdated(modality) else old

    def failed(self, modality: str) -> dict[int, str]:
        """Frames that could not be made, with the message of each."""
        return {} if self.outdated(modality) else self._array(modality).failures()

    def outdated(self, modality: str) -> bool:
        """Whether an input has been declared anew since this modality was."""
        for name, digest in self._array(modality).declaration.inputs.items():
            source = self.arrays.get(name)
            if source and (source.declaration.hash != digest or self.outdated(name)):
                return True
        return False

    def read(self, modality: str, index: int) -> Array:
        """Frame `index` as `(H, W, C)`. Raises DataError where it is absent (see `done`)."""
        frame: Array = self.read_many(modality, index, index + 1)[0]
        return frame

    def read_many(self, modality: str, start: int, stop: int) -> Array:
        """Frames `start` to `stop` (excluded) as `(N, H, W, C)`. Raises DataError where one is absent."""
        array = self._array(modality)
        if not 0 <= start <= stop <= self.frames:
            raise DataError(f"{self.name} has frames 0 to {self.frames - 1}; asked for {start} to {stop - 1}.")
        out = np.empty((stop - start, *array.shape[1:]), array.dtype)
        for row, index in enumerate(range(start, stop)):
            if not array.read(index, out[row]):
                raise DataError(
                    f"Frame {index} of {modality} is missing in {self.name}.",
                    hint="`edgekit status` shows what is missing; `edgekit extract` completes it.",
                )
        return out

    def declare(
        self,
        modality: Modality,
        *,
        expert: str,
        params: Mapping[str, Any] | None = None,
        inputs: Mapping[str, str] | None = None,
        identity: str = "",
    ) -> None:
        """Makes room for a modality, or says how it is made from now on.

        Frames made under another declaration become stale; where the array itself is of another type, they
        are removed. `inputs` maps the names of required modalities to the hashes of their declarations.
        """
        self.declare_as(Declaration(modality, expert, dict(params or {}), dict(inputs or {}), identity))

    def declare_as(self, declaration: Declaration) -> None:
        """`declare` with everything in one object."""
        modality = declaration.modality
        check_name(modality.name, "modality")
        prefix = f"{self.name}/{modality.name}"
        old = self.arrays.get(modality.name)
        if old and old.declaration.hash == declaration.hash:
            return
        shape = (self.frames, *self.size, modality.channels)
        new = ModalityArray(self._storage, prefix, declaration, shape, self.info.unit)
        if old and (old.shape[1:], old.dtype) != (new.shape[1:], new.dtype):
            old.delete()
        elif old:
            new.codec = old.codec  # its frames stay readable, for when they are declared again
        new.save()
        assert self._arrays is not None
        self._arrays[modality.name] = new

    def write(self, modality: str, start: int, frames: Array) -> None:
        """Stores `(N, H, W, C)` from frame `start` on. When it returns, the frames are on the disk.

        Raises DataError when they do not fit, or when there is no space.
        """
        array = self._array(modality)
        if not 0 <= start <= start + len(frames) <= self.frames:
            raise DataError(f"{self.name} has {self.frames} frames: {start} to {start + len(frames)} do not fit.")
        units: dict[int, dict[int, bytes]] = {}
        for index, frame in enumerate(frames, start):
            number, place = divmod(index, array.unit)
            try:
                units.setdefault(number, {})[place] = array.encode(frame)
            except ValueError as error:
                raise DataError(f"{self.name}: {error}") from error
        for number, encoded in units.items():
            array.put(number, encoded, {})

    def fail(self, modality: str, frame: int, message: str) -> None:
        """Records that this frame could not be made, and why."""
        array = self._array(modality)
        array.put(frame // array.unit, {}, {frame % array.unit: message})

    def count(self, frames: int, *, to_the_end: bool = True) -> None:
        """States how many frames there really are, once the video was read to its end, or are at least."""
        if (self.info.counted, self.info.frames) == (to_the_end, frames):
            return
        self.info = replace(self.info, frames=frames, counted=to_the_end)
        for array in self.arrays.values():
            array.shape = (frames, *array.shape[1:])
            array.save()
        self.save()

    def save(self) -> None:
        """Writes the facts of the video."""
        self._storage.put(f"{self.name}/{METADATA}", self.info.to_json())

    def fingerprint(self) -> bytes:
        """Bytes that change whenever anything of this video does."""
        parts = (name.encode() + array.fingerprint() for name, array in sorted(self.arrays.items()))
        return b"".join([self.name.encode(), self.info.to_json(), *parts])

    def _array(self, modality: str) -> ModalityArray:
        try:
            return self.arrays[modality]
        except KeyError:
            raise DataError(
                f"{self.name} has no modality {modality!r}.",
                hint=closest(modality, self.arrays) or "`edgekit status` lists what there is.",
            ) from None
