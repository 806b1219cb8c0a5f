"""All modalities of a frame side by side, with titles, as a picture or a video."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset import Video
from edgekit_experts.files import output_file
from edgekit_runtime.colour import colourise
from edgekit_runtime.errors import DataError, SinkError
from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]

_TITLE_HEIGHT = 26
_BACKGROUND = 24
_TARGET_RATIO = 16 / 9
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def collage(video: Video, index: int, names: Sequence[str], width: int = 1920) -> Array:
    """uint8 RGB (h, width, 3), height and width even: a grid of what the modalities hold at this frame."""
    columns = _columns(len(names), video.size)
    tile_width = width // columns
    tile_height = round(tile_width * video.size[0] / video.size[1])
    rows = math.ceil(len(names) / columns)
    canvas = np.full((rows * (tile_height + _TITLE_HEIGHT), width, 3), _BACKGROUND, np.uint8)
    for place, name in enumerate(names):
        row, column = divmod(place, columns)
        top, left = row * (tile_height + _TITLE_HEIGHT), column * tile_width
        picture = _picture(video, name, index)
        note = "" if picture is not None else " (missing)"
        cv2.putText(canvas, name + note, (left + 8, top + 18), _FONT, 0.5, (230, 230, 230), 1, lineType=cv2.LINE_AA)
        if picture is not None:
            tile = cv2.resize(picture, (tile_width, tile_height), interpolation=cv2.INTER_AREA)
            canvas[top + _TITLE_HEIGHT :, left:][:tile_height, :tile_width] = tile
    return canvas[: canvas.shape[0] // 2 * 2, : canvas.shape[1] // 2 * 2]


def write_png(video: Video, index: int, names: Sequence[str], path: Path) -> None:
    """Raises SinkError when the file cannot be written."""
    picture = collage(video, index, names)
    ok, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert ok
    with output_file(path) as partial:
        partial.write_bytes(data.tobytes())


def write_mp4(
    video: Video,
    frames: range,
    names: Sequence[str],
    path: Path,
    on_frames: Callable[[int], None] = lambda count: None,
) -> None:
    """H.264 at the video's own frame rate. Raises SinkError when the file cannot be written."""
    import av

    with output_file(path) as partial:
        try:
            with av.open(str(partial), "w", format="mp4") as container:
                stream = container.add_stream("libx264", rate=round(max(video.fps, 1)), options={"crf": "23"})
                stream.pix_fmt = "yuv420p"
                for number, index in enumerate(frames):
                    picture = collage(video, index, names)
                    if number == 0:
                        stream.height, stream.width = picture.shape[:2]
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                    on_frames(1)
                container.mux(stream.encode())
        except av.error.FFmpegError as error:
            raise SinkError(f"{path} cannot be written: {error}.", hint="Check the folder and the space.") from error


def shown(video: Video, only: Sequence[str] = ()) -> list[str]:
    """Modalities to show: pictures first, then by kind. Raises DataError for unknown names, or if none."""
    if only:
        for name in only:
            video.done(name)
        return list(only)
    names = drawing_order(video.modalities)
    if not names:
        raise DataError(f"{video.name} has no modality yet.", hint="Run `edgekit extract` first.")
    return names


def drawing_order(modalities: Mapping[str, Modality]) -> list[str]:
    """Names in the order in which they are shown: rgb, then kind by kind."""
    order = list(Kind)
    return sorted(modalities, key=lambda name: (name != "rgb", order.index(modalities[name].kind), name))


def frames_made(video: Video, names: Sequence[str]) -> list[int]:
    """The frames of which any of these modalities is done, in order. Raises DataError if there is none."""
    made = [int(index) for index in np.flatnonzero(np.logical_or.reduce([video.done(name) for name in names]))]
    if not made:
        raise DataError(f"No frame of {video.name} is done yet.", hint="Run `edgekit extract` first.")
    return made


def _picture(video: Video, name: str, index: int) -> Array | None:
    if not video.done(name)[index]:
        return None
    return colourise(video.modalities[name], video.read(name, index))


def _columns(count: int, size: tuple[int, int]) -> int:
    """The grid whose outline is nearest to a screen's."""

    def distance(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(columns * size[1] / (rows * size[0]) / _TARGET_RATIO)) + 0.2 * (columns * rows - count)

    return min(range(1, count + 1), key=distance)
