"""`edgekit status --html`: one page that shows what a data set holds, with pictures; it needs nothing but itself."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.collage import drawing_order
from edgekit_experts.dataset import Dataset, Video
from edgekit_experts.files import output_file
from edgekit_experts.status import Status, grouped_failures
from edgekit_runtime.colour import colourise
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.modality import Kind, Modality

TEMPLATE = "status.html.j2"
PICTURE_WIDTH, THUMBNAIL_WIDTH = 480, 144
JPEG_QUALITY = 82
# Beyond these a page would be slow to open; JSON has everything.
MOST_THUMBNAILS = 200
MOST_FAILURES = 200


@dataclass(frozen=True)
class Picture:
    """A frame of a modality as a JPEG data URI; `error` instead where it cannot be shown."""

    modality: Modality
    expert: str
    video: str = ""
    frame: int = 0
    uri: str = ""
    error: str = ""


def write_status_page(data: Dataset, status: Status, path: Path) -> None:
    """Writes the page to `path`, whole or not at all. Raises SinkError when that fails."""
    page = render(data, status)
    with output_file(path) as partial:
        partial.write_text(page, encoding="utf-8")


def render(data: Dataset, status: Status) -> str:
    """The page as HTML 5. Whatever comes from the data set is escaped."""
    from jinja2 import Environment, StrictUndefined

    videos = [data.video(row.name) for row in status.videos]
    declared: dict[str, Modality] = {}
    for video in videos:
        declared = {**video.modalities, **declared}
    names = drawing_order(declared)
    failures = [
        each for row in status.videos for modality in row.modalities for each in grouped_failures(row.name, modality)
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["size"] = human_size
    template = environment.from_string(files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        status=status,
        title=Path(status.location).name or status.location,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        names=names,
        cells={row.name: {modality.name: modality for modality in row.modalities} for row in status.videos},
        thumbnails={video.name: _thumbnail(video) for video in videos[:MOST_THUMBNAILS]},
        pictures=[_picture(name, declared[name], videos) for name in names],
        failures=failures[:MOST_FAILURES],
        more_failures=len(failures[MOST_FAILURES:]),
    )


def human_size(size: float) -> str:
    """Bytes as people read them: 12 kB, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if size >= 9.95 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _picture(name: str, modality: Modality, videos: Sequence[Video]) -> Picture:
    """The modality in the video that has most modalities, so that nearly all pictures show the same frame."""
    having = [video for video in videos if name in video.modalities]
    expert = having[0].arrays[name].declaration.expert
    made = [video for video in having if video.done(name).any()]
    if not made:
        return Picture(modality, expert, error="no frame is done yet")
    video = max(made, key=lambda video: sum(video.done(each).any() for each in video.modalities))
    frame = _middle(video, name)
    try:
        uri = _jpeg(video, name, frame, PICTURE_WIDTH)
    except EdgekitError as error:
        return Picture(modality, expert, video.name, frame, error=str(error))
    return Picture(modality, expert, video.name, frame, uri)


def _middle(video: Video, name: str) -> int:
    """The middle one of the frames in which all is done that is done anywhere; of those of `name`, if there is none."""
    done = {each: video.done(each) for each in video.modalities}
    shared = np.flatnonzero(np.logical_and.reduce([mask for mask in done.values() if mask.any()]))
    frames = shared if len(shared) else np.flatnonzero(done[name])
    return int(frames[len(frames) // 2])


def _thumbnail(video: Video) -> str:
    """A small picture of the video itself; empty where there is none."""
    declared = video.modalities
    pictures = [name for name in drawing_order(declared) if declared[name].kind is Kind.IMAGE]
    name = next((name for name in pictures if video.done(name).any()), None)
    if name is None:
        return ""
    try:
        return _jpeg(video, name, _middle(video, name), THUMBNAIL_WIDTH)
    except EdgekitError:
        return ""


def _jpeg(video: Video, name: str, frame: int, width: int) -> str:
    return jpeg_uri(colourise(video.modalities[name], video.read(name, frame)), width)


def jpeg_uri(picture: npt.NDArray[np.uint8], width: int) -> str:
    """A uint8 RGB picture, at most `width` pixels wide, as a data URI."""
    height = max(1, round(width * picture.shape[0] / picture.shape[1]))
    if width < picture.shape[1]:
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert ok
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
