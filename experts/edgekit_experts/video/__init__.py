"""Reading videos: files, folders of pictures, and flights over the synthetic world, all as one interface."""

from __future__ import annotations

from pathlib import Path

from edgekit_experts.video.reader import Frame, VideoReader, checked_size

__all__ = ["Frame", "VideoReader", "checked_size", "is_world", "open_video"]


def is_world(uri: str) -> bool:
    """Whether a source names a flight over the synthetic world, which brings its ground truth along."""
    return uri.startswith("world:")


def open_video(uri: str, size: tuple[int, int] | None = None) -> VideoReader:
    """A reader for a video file, a folder of pictures, or `world:SEED?...`; frames come at `size` if given.

    Raises SourceError when there is nothing to read.
    """
    from edgekit_experts.video.resize import ResizedReader

    reader = _open(uri)
    return ResizedReader(reader, size) if size and size != reader.size else reader


def _open(uri: str) -> VideoReader:
    if is_world(uri):
        from edgekit_experts.video.flight import WorldVideo

        return WorldVideo(uri)
    path = Path(uri)
    if path.is_dir():
        from edgekit_experts.video.pictures import PictureFolder

        return PictureFolder(path / "rgb" if (path / "rgb").is_dir() else path, name=path.resolve().name)
    from edgekit_experts.video.file import VideoFile

    return VideoFile(path)
