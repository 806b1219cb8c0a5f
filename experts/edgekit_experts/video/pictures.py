"""Folders of pictures as videos: the sorted order of the names is time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset.names import plain_name
from edgekit_experts.video.reader import UNDECLARED, Frame
from edgekit_experts.video.resize import resize_stream
from edgekit_runtime.errors import SourceError
from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")


@dataclass(frozen=True)
class PictureStream:
    """Pictures that belong to the frames of the same names: `folder/<stem of the frame>.png`.

    A stored value v means `v / divide`, in the dtype of the modality.
    """

    modality: Modality
    folder: Path
    divide: float = 1.0

    def read(self, stem: str, size: tuple[int, int]) -> Array | None:
        """The array of one frame at the frame's size (H, W, C); None where there is no picture."""
        path = self.folder / f"{stem}.png"
        if not path.is_file():
            return None
        raw = _read_picture(path, cv2.IMREAD_UNCHANGED)
        raw = raw[:, :, None] if raw.ndim == 2 else cv2.cvtColor(raw, cv2.COLOR_BGR2RGB)
        if raw.shape[2] != self.modality.channels:
            raise SourceError(
                f"{path} has {raw.shape[2]} channels; {self.modality.name} has {self.modality.channels}.",
                hint="Label pictures hold class ids, one channel; the table says which folder is what.",
            )
        if self.modality.kind is Kind.LABELS:
            _check_ids(path, raw, self.modality)
        scaled = raw if self.divide == 1 else raw.astype(np.float32) / np.float32(self.divide)
        return resize_stream(self.modality, scaled.astype(self.modality.dtype), size)


class PictureFolder:
    """Pictures of one folder, all of one size, with streams of pictures beside them.

    Raises SourceError when there are none, when one cannot be read, or when their sizes differ.
    """

    counted = True
    declared = UNDECLARED
    shortfall = 0

    def __init__(
        self, folder: Path, *, name: str = "", fps: float = 25.0, beside: Sequence[PictureStream] = ()
    ) -> None:
        self.uri = str(folder)
        self.name = plain_name(name or folder.resolve().name)
        self.fps = fps
        self._beside = tuple(beside)
        self.streams = tuple(stream.modality for stream in beside)
        if not folder.is_dir():
            raise SourceError(f"There is no folder {folder}.", hint="Check the path.")
        self._paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if not self._paths:
            raise _no_pictures(folder)
        self.frames = len(self._paths)
        height, width = _read_picture(self._paths[0], cv2.IMREAD_COLOR).shape[:2]
        self.size = (height, width)
        listing = "\n".join(f"{path.name} {path.stat().st_size}" for path in self._paths)
        self.fingerprint = hashlib.sha256(listing.encode()).hexdigest()[:16]

    def exact_frames(self) -> int:
        return self.frames

    def read(self, start: int = 0) -> Iterator[Frame]:
        for index, path in enumerate(self._paths[start:], start):
            rgb = cv2.cvtColor(_read_picture(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            if rgb.shape[:2] != self.size:
                raise SourceError(
                    f"{path} is {rgb.shape[1]}x{rgb.shape[0]}, the first picture {self.size[1]}x{self.size[0]}.",
                    hint="Frames of one video have one size: put the others into a folder of their own.",
                )
            streams = {stream.modality.name: stream.read(path.stem, self.size) for stream in self._beside}
            yield Frame(index, rgb, streams)


def _no_pictures(folder: Path) -> SourceError:
    films = sorted({path.suffix for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES})
    if films:
        return SourceError(
            f"{folder} is a folder of videos; a folder is read as the pictures of one.",
            hint=f"Name the files: {' '.join(str(folder / f'*{ending}') for ending in films)}",
        )
    return SourceError(f"{folder} holds no pictures.", hint=f"Pictures are {', '.join(SUFFIXES)}.")


def _read_picture(path: Path, flags: int) -> Array:
    picture = cv2.imread(str(path), flags)
    if picture is None:
        raise SourceError(f"{path} cannot be read as a picture.", hint="Repair or remove it.")
    return np.asarray(picture)


def _check_ids(path: Path, ids: Array, modality: Modality) -> None:
    taxonomy = modality.taxonomy
    assert taxonomy is not None
    highest = int(np.where(ids == taxonomy.ignore, 0, ids).max())
    if highest >= len(taxonomy):
        raise SourceError(
            f"{path} holds class {highest}; the taxonomy {taxonomy.name!r} ends at {len(taxonomy) - 1}.",
            hint="The table names another taxonomy than the one these pictures were made with.",
        )
