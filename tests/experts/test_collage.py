"""The collage: every modality in its place, what is missing said."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edgekit_experts.collage import collage, shown, write_mp4, write_png
from edgekit_experts.config import parse_config
from edgekit_experts.dataset import Dataset, Video
from edgekit_experts.pipeline import ExtractOptions, extract
from edgekit_experts.video import open_video
from edgekit_runtime.errors import DataError, SinkError

CONFIG = parse_config('[rgb]\nexpert = "rgb"\n[canny]\nexpert = "canny"\n[dis_flow]\nexpert = "dis_flow"', "test")


@pytest.fixture
def video(clip: Path, tmp_path: Path) -> Video:
    extract([open_video(str(clip))], tmp_path / "data", CONFIG, ExtractOptions(frames=(0, 10)))
    return Dataset.open(tmp_path / "data").video("clip")


def test_the_picture_shows_the_frame_where_its_title_is(video: Video, tmp_path: Path) -> None:
    assert shown(video)[0] == "rgb"
    write_png(video, 5, ["rgb"], tmp_path / "one.png")
    picture = cv2.imread(str(tmp_path / "one.png"))[..., ::-1]
    tile = cv2.resize(picture[26:], (64, 48), interpolation=cv2.INTER_AREA)
    difference = np.abs(tile.astype(int) - video.read("rgb", 5))
    assert np.median(difference) <= 3


def test_a_hole_is_left_dark_and_named(video: Video) -> None:
    full, hole = collage(video, 5, ["rgb", "canny"]), collage(video, 50, ["rgb", "canny"])
    assert full.shape == hole.shape
    assert hole[60:].max() == hole[60:].min()
    assert (hole[:26] != full[:26]).any()


def test_the_video_has_the_frames_and_the_pace_of_the_original(video: Video, tmp_path: Path) -> None:
    write_mp4(video, range(10), shown(video), tmp_path / "all.mp4")
    with av.open(str(tmp_path / "all.mp4")) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.average_rate == 25
    assert len(frames) == 10
    assert (frames[0].height, frames[0].width) == collage(video, 0, shown(video)).shape[:2]


def test_what_cannot_be_shown_or_written_is_an_error(video: Video, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no modality 'rbg'"):
        shown(video, ["rbg"])
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="cannot be written"):
        write_png(video, 0, ["rgb"], tmp_path / "file" / "x.png")
    with pytest.raises(SinkError, match="cannot be written"):
        write_mp4(video, range(2), ["rgb"], tmp_path / "file" / "x.mp4")
