"""Reading videos: every frame once, in order, upright; a clear error where there is none."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import number_of, numbered_frames, write_clip

from edgekit_experts.video import open_video
from edgekit_experts.video.resize import resize_stream
from edgekit_runtime.errors import SourceError
from edgekit_runtime.modality import Kind, Modality


def numbers(path: Path, start: int = 0) -> list[tuple[int, int]]:
    return [(frame.index, number_of(frame.rgb)) for frame in open_video(str(path)).read(start)]


def test_every_frame_comes_once_and_in_order(clip: Path) -> None:
    reader = open_video(str(clip))
    assert (reader.size, reader.frames, reader.fps, reader.name) == ((48, 64), 70, 25.0, "clip")
    assert numbers(clip) == [(i, i) for i in range(70)]


def test_a_later_start_gives_the_same_frames(clip: Path) -> None:
    whole = list(open_video(str(clip)).read())
    for start in (1, 33, 69):
        for frame, same in zip(open_video(str(clip)).read(start), whole[start:], strict=True):
            assert frame.index == same.index
            np.testing.assert_array_equal(frame.rgb, same.rgb)


def noisy_frames(count: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 40, (count, 48, 64, 3), np.uint8)
    return numbered_frames(count, (48, 64)) // 2 + noise


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("frames.mp4", "libx264", {"g": "20", "bf": "3"}),
        ("frames.mkv", "libx264", {"x264-params": "open-gop=1:keyint=20:scenecut=0"}),
        ("frames.ts", "libx264", {"g": "20", "bf": "3"}),
        ("frames.flv", "libx264", {"g": "20", "bf": "3"}),
        ("frames.webm", "libvpx-vp9", {"g": "20"}),
        ("frames.avi", "mpeg4", {"g": "20", "bf": "2"}),
        ("frames.mov", "mjpeg", {}),
        ("frames.h264", "libx264", {"g": "20", "bf": "3"}),  # no time stamps at all
        ("frames.mpg", "mpeg2video", {"g": "12", "bf": "2"}),  # packets are not frames
    ],
)
def test_any_start_gives_the_frames_of_a_reading_from_the_beginning(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = write_clip(tmp_path / name, noisy_frames(90), codec=codec, options=options)
    reader = open_video(str(path))
    whole = list(reader.read())
    assert [frame.index for frame in whole] == list(range(90))
    assert reader.exact_frames() in (90, None)
    for start in (1, 19, 20, 21, 45, 89):
        for frame, same in zip(open_video(str(path)).read(start), whole[start:], strict=True):
            assert frame.index == same.index
            np.testing.assert_array_equal(frame.rgb, same.rgb)


def damaged(clip: Path, path: Path) -> Path:
    """The clip with noise in the middle, where a few packets are."""
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = np.random.default_rng(1).bytes(3000)
    path.write_bytes(data)
    return path


def test_damage_in_the_middle_costs_the_frames_that_it_hit_and_renumbers_no_other(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", noisy_frames(90), options={"g": "20", "bf": "3"})
    frames = list(open_video(str(damaged(clip, tmp_path / "damaged.mp4"))).read())
    assert [frame.index for frame in frames] == list(range(90))
    lost = [frame.index for frame in frames if frame.fault]
    assert 0 < len(lost) < 20
    sound = {frame.index: frame.rgb for frame in open_video(str(clip)).read()}
    for index in (0, 10, 80, 89):
        np.testing.assert_array_equal(frames[index].rgb, sound[index])
    later = list(open_video(str(tmp_path / "damaged.mp4")).read(lost[0]))
    assert [frame.index for frame in later if frame.fault] == lost


def test_a_varying_frame_rate_changes_nothing(tmp_path: Path) -> None:
    times = np.cumsum([1, 4, 12, 2, 2, 30] * 5).tolist()
    path = write_clip(tmp_path / "vfr.mp4", numbered_frames(30, (48, 64)), times)
    assert numbers(path) == [(i, i) for i in range(30)]


@pytest.mark.parametrize("size", [(47, 65), (33, 31)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_clip(tmp_path / "odd.mkv", numbered_frames(5, size), codec="ffv1")
    assert open_video(str(path)).size == size
    assert numbers(path) == [(i, i) for i in range(5)]


def test_a_phone_held_upright_gives_upright_frames(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "lying.mp4", numbered_frames(5, (48, 64)))
    turned = tmp_path / "turned.mp4"
    data = source.read_bytes()
    # The track's display matrix, unity as written; a quarter turn as a phone writes it.
    unity = b"".join(n.to_bytes(4, "big") for n in (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000))
    quarter = b"".join(
        n.to_bytes(4, "big", signed=True) for n in (0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000)
    )
    track = data.index(b"tkhd")
    place = data.index(unity, track)
    turned.write_bytes(data[:place] + quarter + data[place + len(unity) :])
    reader = open_video(str(turned))
    assert reader.size == (64, 48)
    lying = next(iter(open_video(str(source)).read())).rgb
    frame = next(iter(reader.read(3))).rgb
    assert frame.shape == (64, 48, 3)
    assert number_of(np.rot90(frame)) == 3  # bars from left to right lie from top to bottom now
    assert lying.shape == (48, 64, 3)


def test_a_video_that_ends_early_gives_what_it_has(clip: Path, tmp_path: Path, real: Path) -> None:
    whole = (real / "videos" / "bgs_video.avi").read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) // 4])
    reader = open_video(str(cut))
    count = sum(1 for _ in reader.read())
    assert 0 < count < 374
    assert reader.shortfall == 374 - count


@pytest.mark.parametrize("name", ["missing.mp4", "empty.mp4", "noise.mp4", "text.mp4", "head.mp4"])
def test_what_is_no_video_is_a_source_error(tmp_path: Path, clip: Path, name: str) -> None:
    path = tmp_path / name
    contents = {
        "empty.mp4": b"",
        "noise.mp4": np.random.default_rng(0).bytes(20_000),
        "text.mp4": b"no video at all\n" * 100,
        "head.mp4": clip.read_bytes()[:600],
    }
    if name in contents:
        path.write_bytes(contents[name])
    with pytest.raises(SourceError) as caught:
        open_video(str(path))
    assert name in str(caught.value)
    assert caught.value.hint


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(SourceError, match="no video stream"):
        open_video(str(path))


def test_the_clip_that_aborts_other_decoders(real: Path) -> None:
    reader = open_video(str(real / "hostile" / "demo_48x48_raw_dib.avi"))
    assert sum(1 for _ in reader.read()) == 51


def test_a_folder_of_pictures_is_a_video_in_the_order_of_names(tmp_path: Path) -> None:
    for number, frame in enumerate(numbered_frames(12, (48, 64))):
        cv2.imwrite(str(tmp_path / f"frame_{number:03d}.png"), frame)
    (tmp_path / "notes.txt").touch()
    assert numbers(tmp_path) == [(i, i) for i in range(12)]
    cv2.imwrite(str(tmp_path / "frame_005.png"), np.zeros((10, 20, 3), np.uint8))
    with pytest.raises(SourceError, match=r"frame_005\.png is 20x10"):
        numbers(tmp_path)
    (tmp_path / "frame_005.png").write_bytes(b"broken")
    with pytest.raises(SourceError, match=r"frame_005\.png cannot be read"):
        numbers(tmp_path)


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no pictures"):
        open_video(str(tmp_path))


def test_a_flight_brings_its_truth(tmp_path: Path) -> None:
    reader = open_video("world:3?frames=2&size=80x48")
    frames = list(reader.read())
    assert [frame.index for frame in frames] == [0, 1]
    for modality in reader.streams:
        array = frames[0].streams[modality.name]
        assert array is not None
        assert modality.truth
        assert (array.shape, array.dtype.name) == ((48, 80, modality.channels), modality.dtype)


def test_flights_along_other_paths_are_other_videos() -> None:
    first, second = open_video("world:3?frames=2"), open_video("world:3?frames=2&path=1")
    assert (first.name, second.name) == ("world-3", "world-3-path-1")
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    "uri", ["world:1?path=-1", "world:", "world:x", "world:1?frames=0", "world:1?size=9", "world:1?frame=3", "world:-1"]
)
def test_a_flight_to_nowhere_is_an_error(uri: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_video(uri)
    assert "literal" not in str(caught.value), "Python's words are no help"


def test_resizing_scales_flow_and_makes_up_no_class() -> None:
    flow = np.full((10, 20, 2), 4, np.float16)
    resized = resize_stream(Modality("flow", Kind.FLOW, 2, "float16"), flow, (5, 40))
    assert resized.shape == (5, 40, 2)
    assert (resized[..., 0] == 8).all()
    assert (resized[..., 1] == 2).all()
    mask = np.zeros((10, 20, 1), np.uint8)
    mask[:, 10:] = 7
    assert set(np.unique(resize_stream(Modality("m", Kind.MASK), mask, (7, 33)))) == {0, 7}


def test_frames_come_at_the_size_that_was_asked_for(clip: Path) -> None:
    reader = open_video(str(clip), (24, 40))
    frame = next(iter(reader.read(5)))
    assert reader.size == (24, 40)
    assert frame.rgb.shape == (24, 40, 3)
    assert number_of(frame.rgb) == 5
