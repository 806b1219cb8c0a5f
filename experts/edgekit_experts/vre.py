"""The per-frame layout of VRE and Dronescapes: one compressed NumPy file per frame and representation.

    <folder>/<representation>/npz/<frame>.npz            key `arr_0`; labels and other single channels as (H, W)
    <folder>/<video>/<representation>/npz/<frame>.npz    where there is more than one video

An export adds `edgekit.json`, which says what each representation is; without it (folders that other tools
wrote) an import goes by shapes and types, and needs a table for labels.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset import Dataset, Video, VideoInfo, unit_frames
from edgekit_experts.dataset.names import plain_name
from edgekit_experts.taxonomies import find_taxonomy
from edgekit_runtime.errors import DataError
from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]
OnFrames = Callable[[int], None]

DESCRIPTION = "edgekit.json"


def export_vre(data: Dataset, out: Path, on_frames: OnFrames = lambda count: None) -> int:
    """Writes every frame that is done and returns how many; frames that are missing have no file.

    Raises DataError when the folder is not empty or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and is not empty.", hint="Give a new folder with -o.")
    written = 0
    for name in data.videos:
        video = data.video(name)
        folder = out / name if len(data.videos) > 1 else out
        try:
            written += _export_video(video, folder, on_frames)
        except OSError as error:
            raise DataError(f"Cannot write {folder}: {error.strerror}.", hint="Free some space.") from error
    return written


def _export_video(video: Video, folder: Path, on_frames: OnFrames) -> int:
    written = 0
    for name, modality in video.modalities.items():
        target = folder / name / "npz"
        target.mkdir(parents=True)
        for index in np.flatnonzero(video.done(name)):
            frame = video.read(name, int(index))
            flat = frame[..., 0] if modality.channels == 1 else frame
            np.savez_compressed(target / f"{index}.npz", flat)
            written += 1
            on_frames(1)
    description = {
        "name": video.name,
        "frames": video.frames,
        "fps": video.fps,
        "split": video.split,
        "modalities": [modality.to_dict() for modality in video.modalities.values()],
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return written


@dataclass(frozen=True)
class _Layout:
    """One video on disk: `files[representation][frame name]`, frame names in their order of time."""

    name: str
    frames: tuple[str, ...]
    fps: float
    split: str
    files: Mapping[str, Mapping[str, Path]]
    modalities: Mapping[str, Modality]


def import_vre(
    source: Path,
    data: Dataset,
    *,
    split: str = "",
    taxonomies: Mapping[str, str] | None = None,
    on_frames: OnFrames = lambda count: None,
) -> list[str]:
    """Adds the videos below `source` to the data set and returns their names.

    `taxonomies` names the taxonomy of each representation that holds class ids. What is done already is not
    read again. Raises DataError that names the file at fault.
    """
    folders = [source] if _is_video(source) else sorted(path for path in _folders(source) if _is_video(path))
    if not folders:
        raise DataError(
            f"{source} is not in the layout of VRE.", hint="It is <folder>/<representation>/npz/<frame>.npz."
        )
    names = []
    for folder in folders:
        layout = _read_layout(folder, taxonomies or {})
        first = _load(next(iter(next(iter(layout.files.values())).values())))
        size = (first.shape[0], first.shape[1])
        info = VideoInfo(
            len(layout.frames),
            size,
            layout.fps,
            split or layout.split,
            {"uri": str(folder), "fingerprint": "vre:" + ",".join(layout.frames)[:1000]},
            unit=unit_frames(size),
        )
        data.add_video(layout.name, info)
        with data.writing(layout.name) as video:
            _import_video(video, layout, on_frames)
        names.append(layout.name)
    return names


def _import_video(video: Video, layout: _Layout, on_frames: OnFrames) -> None:
    unit = video.info.unit
    for name, modality in layout.modalities.items():
        video.declare(modality, expert="import_vre")
        done = video.done(name)
        for start in range(0, video.frames, unit):
            stop = min(video.frames, start + unit)
            for run in _runs([i for i in range(start, stop) if layout.frames[i] in layout.files[name] and not done[i]]):
                loaded = [_frame(layout.files[name][layout.frames[i]], modality) for i in run]
                video.write(name, run[0], np.stack(loaded))
                on_frames(len(run))


def _is_video(folder: Path) -> bool:
    return any((path / "npz").is_dir() for path in _folders(folder))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _read_layout(folder: Path, taxonomies: Mapping[str, str]) -> _Layout:
    files = {
        plain_name(path.name): {file.stem: file for file in (path / "npz").glob("*.npz")}
        for path in _folders(folder)
        if (path / "npz").is_dir()
    }
    description = _description(folder / DESCRIPTION)
    known = {modality.name: modality for modality in description.get("modalities", ())}
    files = {name: frames for name, frames in files.items() if frames}
    names = sorted({stem for frames in files.values() for stem in frames}, key=_time_order)
    if description:
        names = [str(index) for index in range(int(description["frames"]))]
    if not files or not names:
        raise DataError(f"{folder} holds no npz file.", hint="Export it again.")
    modalities = {
        name: known.get(name) or _guess(name, _load(next(iter(frames.values()))), taxonomies.get(name))
        for name, frames in files.items()
    }
    return _Layout(
        plain_name(str(description.get("name", folder.resolve().name))),
        tuple(names),
        float(description.get("fps", 25.0)),
        str(description.get("split", "train")),
        files,
        modalities,
    )


def _description(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {**table, "modalities": [Modality.from_dict(entry) for entry in table["modalities"]]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}.", hint="Export the data set again.") from error


def _time_order(stem: str) -> tuple[str, int]:
    """`10` after `9`, `scene_10` after `scene_9`."""
    digits = stem[len(stem.rstrip("0123456789")) :]
    return stem.removesuffix(digits), int(digits or 0)


def _guess(name: str, array: Array, taxonomy: str | None) -> Modality:
    """What a representation is, from the array of one frame. Raises DataError where that cannot be told."""
    channels = 1 if array.ndim == 2 else array.shape[2]
    if taxonomy is not None:
        return Modality(name, Kind.LABELS, taxonomy=find_taxonomy(taxonomy))
    if array.dtype == np.uint8 and channels == 3:
        return Modality(name, Kind.IMAGE, 3, "uint8", (0, 255))
    if array.dtype == bool:
        return Modality(name, Kind.MASK)
    if array.dtype.kind == "f":
        if channels == 2:
            return Modality(name, Kind.FLOW, 2, "float16", None, "px")
        if channels == 3 and "normal" in name:
            return Modality(name, Kind.NORMALS, 3, "float16", (-1, 1))
        if channels == 1:
            return Modality(name, Kind.DEPTH, 1, "float16")
        return Modality(name, Kind.IMAGE, channels, "float16")
    raise DataError(
        f"{name}: arrays of {array.dtype} {array.shape} could be many things.",
        hint=f"If they are class ids, say of which taxonomy: --taxonomy {name}=NAME.",
    )


def _frame(path: Path, modality: Modality) -> Array:
    array = _load(path)
    return (array[:, :, None] if array.ndim == 2 else array).astype(modality.dtype)


def _load(path: Path) -> Array:
    try:
        # NumPy leaves a file open that it opened itself and could not read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            array = np.asarray(archive["arr_0"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}.", hint="Remove or replace this file.") from error
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise DataError(f"{path} has shape {array.shape}.", hint="Frames are (H, W) or (H, W, C).")
    return array


def _runs(indices: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs
