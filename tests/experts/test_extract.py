"""The pipeline: it makes what is missing, once, whatever happened before."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import expert_file, files_of, number_of, numbered_frames, write_clip

from edgekit_experts.config import Config, parse_config, shipped_config
from edgekit_experts.dataset import Dataset, Video
from edgekit_experts.pipeline import ExtractOptions, ExtractReport, extract
from edgekit_experts.status import read_status
from edgekit_experts.video import open_video
from edgekit_runtime.errors import DataError, ExpertError, SourceError, UsageError

CONFIG = parse_config('[rgb]\nexpert = "rgb"\n[canny]\nexpert = "canny"\n[dis_flow]\nexpert = "dis_flow"', "test")


def run(clip: Path, out: Path, config: Config = CONFIG, **options: object) -> ExtractReport:
    return extract([open_video(str(clip))], out, config, ExtractOptions(**options))  # type: ignore[arg-type]


def only_video(out: Path) -> Video:
    data = Dataset.open(out)
    return data.video(data.videos[0])


def test_a_real_clip_through_the_default_set(real: Path, tmp_path: Path) -> None:
    clip = real / "videos" / "udacity_vehicle_test_video.mp4"
    extract([open_video(str(clip), (180, 320))], tmp_path, shipped_config("default"))
    video = only_video(tmp_path)
    assert (video.frames, video.size, video.info.counted) == (38, (180, 320), True)
    for name in ("rgb", "hsv", "canny", "dis_flow"):
        assert video.done(name).all(), name
    frames = np.stack([frame.rgb for frame in open_video(str(clip), (180, 320)).read()])
    np.testing.assert_array_equal(video.read_many("rgb", 0, 38), frames)
    cv2.setNumThreads(1)
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    # The last pair inside a unit, the pair across its border, and the last frame, which has no partner.
    for index in (30, 31, 37):
        flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        expected = flow.calc(greys[index], greys[min(index + 1, 37)], None).astype(np.float16)
        np.testing.assert_array_equal(video.read("dis_flow", index), expected)
    cv2.setNumThreads(-1)


def test_a_second_run_finds_nothing_to_do(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert run(clip, out).written == 3 * 70
    before = files_of(out)
    assert run(clip, out).written == 0
    assert files_of(out) == before


def test_the_number_of_workers_changes_no_byte(clip: Path, tmp_path: Path) -> None:
    run(clip, tmp_path / "one", workers=1)
    run(clip, tmp_path / "four", workers=4)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "four")


def test_parts_add_up_to_the_whole(clip: Path, tmp_path: Path) -> None:
    run(clip, tmp_path / "whole")
    parts = tmp_path / "parts"
    run(clip, parts, frames=(40, 50))
    assert np.flatnonzero(only_video(parts).done("rgb")).tolist() == list(range(40, 50))
    run(clip, parts, only=("canny",))
    assert only_video(parts).done("canny").all()
    assert only_video(parts).done("rgb").sum() == 10
    assert run(clip, parts).written == 60 + 60
    assert files_of(parts) == files_of(tmp_path / "whole")


KILLED = """
import sys
from pathlib import Path
from edgekit_experts.config import parse_config
from edgekit_experts.pipeline import extract
from edgekit_experts.video import open_video
source = Path(sys.argv[3]).read_text(encoding="utf-8")
extract([open_video(sys.argv[1])], Path(sys.argv[2]), parse_config(source, "test"))
"""


def test_killed_at_any_moment_it_resumes_to_the_same_bytes(clip: Path, tmp_path: Path) -> None:
    mine = expert_file(tmp_path, "time.sleep(0.01 * len(batch.frames))\nreturn 255 - batch.frames\n")
    text = f'[rgb]\nexpert = "rgb"\n[mine]\nexpert = "{mine}:Mine"\n[dis_flow]\nexpert = "dis_flow"\n'
    (tmp_path / "experts.toml").write_text(text, encoding="utf-8")
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(clip), str(out), str(tmp_path / "experts.toml")]
    done_before: list[int] = []
    for states in (1, 3):
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        while process.poll() is None and len(list(out.rglob("state/*.json"))) < states:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        done_before.append(read_status(Dataset.open(out)).done)
    assert 0 < done_before[0] <= done_before[1] < 3 * 70
    config = parse_config(text, "test")
    assert run(clip, out, config).written == 3 * 70 - done_before[1]
    run(clip, tmp_path / "whole", config)
    assert files_of(out) == files_of(tmp_path / "whole")


def test_interrupted_by_hand_it_keeps_what_is_ready(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"

    def run_until_the_first_unit_is_written() -> None:
        options = ExtractOptions(workers=1)
        extract([open_video(str(clip))], out, CONFIG, options, lambda _: signal.raise_signal(signal.SIGINT))
        time.sleep(1)  # the signal may come a moment later

    with pytest.raises(KeyboardInterrupt):
        run_until_the_first_unit_is_written()
    assert only_video(out).done("rgb")[:32].all()
    run(clip, out)
    assert only_video(out).done("dis_flow").all()


def test_an_expert_that_throws_on_one_frame_costs_that_frame_only(clip: Path, tmp_path: Path) -> None:
    mine = expert_file(
        tmp_path,
        """
        if batch.first <= 33 < batch.first + len(batch.frames):
            raise ZeroDivisionError("one over the horizon")
        return batch.frames
        """,
    )
    text = f'[mine]\nexpert = "{mine}:Mine"\n[again]\nexpert = "given"\nof = "mine"\n[rgb]\nexpert = "rgb"'
    out = tmp_path / "data"
    run(clip, out, parse_config(text, "test"))
    video = only_video(out)
    assert video.failed("mine") == {33: "ZeroDivisionError: one over the horizon (mine.py, line 12)"}
    assert video.failed("again") == {33: "needs mine, which failed"}
    assert np.flatnonzero(~video.done("again")).tolist() == [33]
    assert video.done("rgb").all()
    status = read_status(Dataset.open(out))
    assert (status.done, status.failed, status.missing) == (3 * 70 - 2, 2, 0)
    assert number_of(video.read("mine", 32)) == 32
    assert number_of(video.read("mine", 34)) == 34


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return batch.frames[:, ::2]", "must be uint8"),
        ("return batch.frames / 255", "float64 came back"),
        ("return batch.frames[:-1]", "0 frames came back for 1"),
        ("return None", "TypeError"),
    ],
)
def test_an_expert_that_breaks_its_word_is_a_failure_with_a_reason(
    clip: Path, tmp_path: Path, body: str, message: str
) -> None:
    mine = expert_file(tmp_path, body)
    out = tmp_path / "data"
    run(clip, out, parse_config(f'[mine]\nexpert = "{mine}:Mine"', "test"), frames=(0, 3))
    failed = only_video(out).failed("mine")
    assert list(failed) == [0, 1, 2]
    assert message in failed[0]


def test_a_changed_parameter_makes_its_frames_stale_and_remakes_only_them(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    run(clip, out)
    other = {**CONFIG, "canny": {"expert": "canny", "low": 10}}
    run(clip, out, other, frames=(0, 32))
    video = only_video(out)
    assert (video.done("canny").sum(), video.stale("canny").sum()) == (32, 38)
    status = read_status(Dataset.open(out))
    assert (status.stale, status.missing) == (38, 0)
    again = run(clip, out, other)
    assert again.written == 38
    assert again.notes == [
        "38 frames of canny in clip were made otherwise than they would be now: they are made again."
    ]
    assert only_video(out).done("canny").all()


def test_remaking_a_part_of_a_unit_keeps_the_rest_as_stale(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    run(clip, out)
    before = only_video(out).read("canny", 20)
    other = {**CONFIG, "canny": {"expert": "canny", "low": 10}}
    run(clip, out, other, frames=(4, 9))
    video = only_video(out)
    assert np.flatnonzero(video.done("canny")).tolist() == [4, 5, 6, 7, 8]
    assert video.stale("canny").sum() == 65
    np.testing.assert_array_equal(video.read("canny", 20), before)
    assert not np.array_equal(video.read("canny", 5), before)
    # Back again: other units were never touched, and are as they should be; of this one nobody knows any more.
    assert run(clip, out).written == 32
    run(clip, tmp_path / "whole")
    assert files_of(out) == files_of(tmp_path / "whole")


def test_progress_counts_what_is_left_to_do(clip: Path, tmp_path: Path) -> None:
    run(clip, tmp_path / "data", frames=(0, 50))
    seen: list[tuple[int, int]] = []
    extract(
        [open_video(str(clip))], tmp_path / "data", CONFIG, None, lambda state: seen.append((state.frames, state.total))
    )
    assert seen == [(14, 20), (20, 20)]


def test_a_stored_input_is_read_and_not_made_again(clip: Path, tmp_path: Path) -> None:
    counter = tmp_path / "calls"
    mine = expert_file(
        tmp_path, f"with open({str(counter)!r}, 'a') as file: file.write('x')\nreturn 255 - batch.frames\n"
    )
    base = f'[mine]\nexpert = "{mine}:Mine"\n'
    out = tmp_path / "data"
    run(clip, out, parse_config(base, "test"))
    calls = counter.read_text(encoding="utf-8")
    run(clip, out, parse_config(base + '[copy]\nexpert = "given"\nof = "mine"\n', "test"))
    assert counter.read_text(encoding="utf-8") == calls
    video = only_video(out)
    np.testing.assert_array_equal(video.read("copy", 69), video.read("mine", 69))


def test_a_video_that_ends_early_has_as_many_frames_as_came(clip: Path, tmp_path: Path, real: Path) -> None:
    whole = (real / "videos" / "bgs_video.avi").read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) // 4])
    report = run(cut, tmp_path / "data")
    video = only_video(tmp_path / "data")
    assert video.info.counted
    assert 32 < video.frames < 374
    assert report.notes == [f"{cut} is cut short: it has {video.frames} of the 374 frames that its header promises."]
    assert video.done("dis_flow").all()
    assert run(cut, tmp_path / "data").written == 0


def test_a_damaged_frame_is_a_failure_of_what_looks_at_it_and_of_nothing_else(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (70, 48, 64, 3), np.uint8)
    clip = write_clip(tmp_path / "clip.mkv", noise, codec="mjpeg")
    data = bytearray(clip.read_bytes())
    # The 40th picture loses its beginning: it cannot be decoded.
    place = -1
    for _ in range(41):
        place = data.index(b"\xff\xd8\xff", place + 1)
    data[place : place + 600] = bytes(600)
    clip.write_bytes(data)
    report = run(clip, tmp_path / "data")
    video = only_video(tmp_path / "data")
    assert video.frames == 70
    assert video.failed("rgb") == {40: "the picture cannot be decoded"}
    assert video.failed("dis_flow") == {
        39: "looks at frame 40: the picture cannot be decoded",
        40: "the picture cannot be decoded",
    }
    assert video.done("rgb").sum() == 69
    assert not report.notes


def test_the_report_says_what_the_run_waited_for(clip: Path, tmp_path: Path) -> None:
    mine = expert_file(tmp_path, "time.sleep(0.02 * len(batch.frames))\nreturn batch.frames\n")
    config = parse_config(f'[rgb]\nexpert = "rgb"\n[mine]\nexpert = "{mine}:Mine"', "test")
    report = run(clip, tmp_path / "data", config)
    assert report.spent.bottleneck == "mine"
    assert report.spent.computing["mine"] >= 70 * 0.02


def test_the_full_disk_is_said_and_nothing_is_lost(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    text = '[canny]\nexpert = "canny"\n[rgb]\nexpert = "rgb"'
    noise = write_clip(
        tmp_path / "noise.mkv",
        np.random.default_rng(0).integers(0, 256, (70, 48, 64, 3), np.uint8),
        codec="ffv1",
    )
    (tmp_path / "experts.toml").write_text(text, encoding="utf-8")
    # What no file may exceed stands for a disk without space: the same write fails at the same place.
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(noise), str(out), str(tmp_path / "experts.toml")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        encoding="utf-8",
    )
    assert process.returncode == 1
    assert "edgekit_runtime.errors.DataError: No space to write" in process.stderr
    assert not list(out.rglob("*.partial"))
    # Where the first write of all was the one that failed, nothing is left.
    before = read_status(Dataset.open(out)).done if out.exists() else 0
    assert run(noise, out, parse_config(text, "test")).written == 2 * 70 - before
    run(noise, tmp_path / "whole", parse_config(text, "test"))
    assert files_of(out) == files_of(tmp_path / "whole")


def test_everything_is_checked_before_anything_is_written(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    with pytest.raises(ExpertError):
        run(clip, out, parse_config('[n]\nexpert = "normals"\nof = "depth"', "test"))
    with pytest.raises(SourceError):
        extract([open_video(str(clip)), open_video(str(tmp_path / "none.mp4"))], out, CONFIG)
    assert not out.exists()


def test_spans_that_hold_no_frame_are_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        ExtractOptions(frames=(5, 5))
    with pytest.raises(UsageError, match="70 frames"):
        run(clip, tmp_path / "data", frames=(100, 200))


def test_another_video_of_the_same_name_is_refused(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    run(clip, out, only=("rgb",))
    (tmp_path / "other").mkdir()
    other = write_clip(tmp_path / "other" / "clip.mp4", numbered_frames(5, (48, 64)))
    with pytest.raises(DataError, match="another video named 'clip'"):
        run(other, out)
    shutil.rmtree(out)


def test_context_reaches_through_several_experts(clip: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        textwrap.dedent(
            """
            from edgekit_experts.expert import Expert
            from edgekit_runtime.modality import Kind, Modality

            class Next(Expert):
                context = (1, 2)
                def __init__(self, of=""):
                    self.of = of
                @property
                def requires(self):
                    return (self.of,) if self.of else ()
                def produces(self, inputs):
                    return Modality("next", Kind.IMAGE, 3)
                def compute(self, batch):
                    assert len(batch.frames) >= 4
                    return (batch.inputs[self.of] if self.of else batch.frames)[3:]
            """
        ),
        encoding="utf-8",
    )
    text = f'[one]\nexpert = "{mine}:Next"\n[two]\nexpert = "{mine}:Next"\nof = "one"\n'
    out = tmp_path / "data"
    run(clip, out, parse_config(text, "test"))
    video = only_video(out)
    for index in (0, 27, 28, 29, 31, 32, 65, 69):
        assert number_of(video.read("one", index)) == min(index + 2, 69)
        assert number_of(video.read("two", index)) == min(index + 4, 69)


def test_a_run_that_begins_behind_an_early_end_finds_it(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (70, 96, 128, 3), np.uint8)
    clip = write_clip(tmp_path / "whole.avi", noise, codec="mpeg4")
    cut = tmp_path / "cut.avi"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 3])
    count = sum(1 for _ in open_video(str(cut)).read())
    assert count < 32 < open_video(str(cut)).frames
    out = tmp_path / "data"
    # As a run leaves it that was killed before it could note the end.
    run(cut, out, frames=(0, count))
    run(cut, out)
    assert only_video(out).frames == count
    assert only_video(out).done("rgb").all()


def test_a_run_that_makes_nothing_leaves_behind_what_was_there(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    config = parse_config('[rgb]\nexpert = "rgb"\n', "test")
    extract([open_video(str(clip))], out, config, ExtractOptions(frames=(0, 4)))
    before = files_of(out)
    second = write_clip(tmp_path / "second.mp4", numbered_frames(5, (48, 64)))
    for videos in ([second], [clip, second]):
        with pytest.raises(UsageError, match="none from 500 on"):
            extract([open_video(str(each)) for each in videos], out, config, ExtractOptions(frames=(500, 600)))
        # The first video has been counted by reading it to the end; its frames are as they were.
        assert set(files_of(out)) == set(before)
    assert Dataset.open(out).video("clip").done("rgb").sum() == 4
