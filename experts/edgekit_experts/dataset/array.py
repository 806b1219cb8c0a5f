"""One modality of one video: a Zarr 3 array `(F, H, W, C)` whose shards are work units, and their states.

    <video>/<modality>/zarr.json         shape, codecs, and the declaration in its attributes
    <video>/<modality>/c.<unit>.0.0.0    one shard: the frames of one unit, one chunk each
    <video>/<modality>/state/<unit>.json which of them are done or failed
    <video>/<modality>/kept/<name>.json  what was computed from all of them, and from which state

A frame is done when the shard that holds it is on the disk and, after that, the state that names it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset.declaration import Declaration
from edgekit_experts.dataset.shard import (
    ABSENT,
    FrameCodec,
    codec_for,
    index_bytes,
    pack,
    read_index,
    stated_codec,
    unpack,
)
from edgekit_experts.dataset.storage import Storage
from edgekit_experts.dataset.unit import UnitState
from edgekit_runtime.errors import DataError
from edgekit_runtime.modality import Modality

Array = npt.NDArray[Any]

METADATA = "zarr.json"
ATTRIBUTES = "edgekit"


class ModalityArray:
    """Reads and writes the frames of one modality. `shape` is (F, H, W, C), `unit` the frames per shard, `codec` that
    of the frames that are there already.
    """

    def __init__(
        self,
        storage: Storage,
        prefix: str,
        declaration: Declaration,
        shape: tuple[int, int, int, int],
        unit: int,
        codec: FrameCodec | None = None,
    ) -> None:
        self.declaration = declaration
        self.shape = shape
        self.unit = unit
        self.dtype = np.dtype(declaration.modality.dtype)
        self._storage = storage
        self._prefix = prefix
        self.codec = codec or codec_for(declaration.modality, math.prod(shape[1:]) * self.dtype.itemsize)
        self._states: dict[int, UnitState] | None = None
        self._indices: dict[int, tuple[object, Array]] = {}

    @classmethod
    def parse(cls, storage: Storage, prefix: str, data: bytes) -> ModalityArray:
        """The array at this place, whose `zarr.json` is `data`. Raises DataError when that is damaged."""
        try:
            table = json.loads(data)
            frames, height, width, channels = (int(n) for n in table["shape"])
            unit = int(table["chunk_grid"]["configuration"]["chunk_shape"][0])
            declaration = Declaration.from_dict(table["attributes"][ATTRIBUTES])
            codec = stated_codec(table["codecs"][0]["configuration"]["codecs"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DataError(
                f"{storage.address(f'{prefix}/{METADATA}')} is not an edgekit array: {error}",
                hint="Remove that folder and extract again, or restore the file.",
            ) from error
        return cls(storage, prefix, declaration, (frames, height, width, channels), unit, codec)

    def save(self) -> None:
        """Writes `zarr.json`, if it says something else now."""
        data = json.dumps(self._metadata(), indent=1).encode() + b"\n"
        key = f"{self._prefix}/{METADATA}"
        if self._storage.get(key) != data:
            self._storage.put(key, data)

    def delete(self) -> None:
        """Removes the array with all its frames; the metadata first, so that half an array is never read."""
        self._storage.delete(f"{self._prefix}/{METADATA}")
        self._storage.delete(self._prefix)

    @property
    def states(self) -> Mapping[int, UnitState]:
        """State of each unit that was ever written."""
        if self._states is None:
            folder = f"{self._prefix}/state"
            states = {}
            for key, data in self._storage.get_many(f"{folder}/{name}" for name in self._storage.list(folder)).items():
                # What is not ours, or altered, counts as missing: its frames will be made again.
                with suppress(ValueError):
                    states[int(key.removeprefix(f"{folder}/").removesuffix(".json"))] = UnitState.from_json(data)
            self._states = states
        return self._states

    def recorded(self) -> tuple[Array, Array]:
        """Two bool arrays (F,): frames done under the present declaration, frames done under another."""
        done, old = np.zeros(self.shape[0], bool), np.zeros(self.shape[0], bool)
        for number, state in self.states.items():
            for target, frames in (
                (done if state.hash == self.declaration.hash else old, state.done),
                (old, state.old),
            ):
                places = number * self.unit + np.fromiter(frames, np.int64, len(frames))
                target[places[places < self.shape[0]]] = True
        return done, old

    def failures(self) -> dict[int, str]:
        """Frames that failed under the present declaration, with the message of each."""
        return {
            number * self.unit + place: message
            for number, state in sorted(self.states.items())
            if state.hash == self.declaration.hash
            for place, message in state.failed.items()
            if number * self.unit + place < self.shape[0]
        }

    def encode(self, frame: Array) -> bytes:
        """One frame `(H, W, C)` in the form in which `put` takes it. Raises ValueError if it does not fit."""
        if frame.shape != self.shape[1:] or frame.dtype != self.dtype:
            raise ValueError(
                f"{self.declaration.modality.name} must be {self.dtype} {self.shape[1:]}, "
                f"not {frame.dtype} {frame.shape}"
            )
        return self.codec.encode(np.ascontiguousarray(frame))

    def put(self, number: int, encoded: Mapping[int, bytes], failed: Mapping[int, str]) -> None:
        """Adds frames (keyed by their place) to a unit; frames of the same declaration that are there stay."""
        shard_key, state_key = self._shard_key(number), f"{self._prefix}/state/{number}.json"
        state = self.states.get(number) or UnitState(self.declaration.hash)
        kept: dict[int, bytes] = {}
        if state.hash != self.declaration.hash:
            # First say that all is old: a crash between the two writes must not pass new frames off as old ones.
            state = UnitState(self.declaration.hash, old=state.done | state.old)
            self._storage.put(state_key, state.to_json())
        if (state.done | state.old) - encoded.keys():
            stored = unpack(self._storage.get(shard_key) or b"", self.unit)
            kept = {place: data for place, data in stored.items() if place in state.done | state.old}
        chunks = {**kept, **encoded}
        if encoded:
            self._storage.put(shard_key, pack(chunks, self.unit))
        done = state.done | encoded.keys()
        failures = {place: message for place, message in state.failed.items() if place not in done}
        state = UnitState(self.declaration.hash, done, {**failures, **failed}, state.old - encoded.keys())
        self._storage.put(state_key, state.to_json())
        assert self._states is not None
        self._states[number] = state
        self._indices.pop(number, None)

    def read(self, frame: int, out: Array) -> bool:
        """Decodes one frame into `out` `(H, W, C)`; False where it is absent. Raises DataError if damaged."""
        number, place = divmod(frame, self.unit)
        try:
            data = self._chunk(number, place)
            if data is None:
                return False
            self.codec.decode(data, out)
        except (ValueError, RuntimeError) as error:
            raise DataError(
                f"Frame {frame} of {self._prefix} is damaged: {error}.",
                hint=f"Remove {self._storage.address(self._shard_key(number))} and its state, and extract again.",
            ) from error
        return True

    def size_bytes(self) -> int:
        return self._storage.size(self._prefix)

    def fingerprint(self) -> bytes:
        """Bytes that change whenever the declaration or any state does."""
        states = (state.to_json() for _, state in sorted(self.states.items()))
        return b"".join([json.dumps(self._metadata(), sort_keys=True).encode(), *states])

    def recall(self, name: str) -> Any:
        """What `remember` kept under this name; `{}` if there is nothing, or the array has changed since."""
        try:
            table = json.loads(self._storage.get(self._kept_key(name)) or b"{}")
            return table["value"] if table["of"] == self._digest() else {}
        except (DataError, KeyError, TypeError, ValueError):
            return {}

    def remember(self, name: str, value: Mapping[str, Any]) -> None:
        """Keeps a JSON value that was computed from the frames, if the data set can be written."""
        data = json.dumps({"of": self._digest(), "value": value}, indent=1).encode() + b"\n"
        with suppress(DataError):  # read-only or full: it is computed again next time
            self._storage.put(self._kept_key(name), data)

    def _kept_key(self, name: str) -> str:
        return f"{self._prefix}/kept/{name}.json"

    def _digest(self) -> str:
        return hashlib.sha256(self.fingerprint()).hexdigest()[:16]

    def _chunk(self, number: int, place: int) -> bytes | None:
        key, tail = self._shard_key(number), index_bytes(self.unit)
        try:
            while True:
                known = self._indices.get(number)
                if known is None:
                    data, version = self._storage.get_range(key, -tail, tail)
                    known = self._indices[number] = version, read_index(data, self.unit)
                version, index = known
                offset, length = index[place]
                if offset == ABSENT:
                    return None
                data, current = self._storage.get_range(key, int(offset), int(length))
                if current == version:
                    return data
                self._indices.pop(number, None)  # rewritten by somebody since we read its index
        except FileNotFoundError:
            return None

    def _shard_key(self, number: int) -> str:
        return f"{self._prefix}/c.{number}.0.0.0"

    def _metadata(self) -> dict[str, Any]:
        """`zarr.json` as the Zarr 3 specification has it."""
        frame = list(self.shape[1:])
        sharding = {
            "chunk_shape": [1, *frame],
            "codecs": self.codec.metadata,
            "index_codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"},
            ],
            "index_location": "end",
        }
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [self.unit, *frame]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": _fill_value(self.declaration.modality),
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": {ATTRIBUTES: self.declaration.to_dict()},
            "storage_transformers": [],
        }


def _fill_value(modality: Modality) -> float | str:
    """What a reader sees where a frame is absent, as JSON has it."""
    return "NaN" if math.isnan(modality.absent) else modality.absent
