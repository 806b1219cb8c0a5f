"""The commands that turn video into a data set, as a person or a script gives them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from edgekit.cli import main
from edgekit.commands import data, experts, view
from edgekit_runtime.errors import EdgekitError

app = typer.Typer()
data.register(app)
view.register(app)
experts.register(app)


def edgekit(*arguments: object) -> str:
    """What is printed on stdout; errors come as they are raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_extract_and_status_give_scripts_what_they_rely_on(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    document = json.loads(edgekit("extract", clip, "-o", out, "--only", "rgb,canny", "--json"))
    assert (document["done"], document["failed"], document["stale"], document["missing"]) == (140, 0, 0, 0)
    assert document["fps"] > 0
    assert document["written"] == 140
    (video,) = document["videos"]
    assert (video["name"], video["frames"], video["size"], video["split"]) == ("clip", 70, [48, 64], "train")
    assert {row["name"]: row["done"] for row in video["modalities"]} == {"rgb": 70, "canny": 70}
    again = json.loads(edgekit("status", out, "--json"))
    assert again["videos"] == document["videos"]
    assert {"videos", "done", "failed", "stale", "fps"} <= again.keys()


def test_the_options_of_extract(clip: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text('[edges]\nexpert = "canny"\nlow = 10\n', encoding="utf-8")
    text = edgekit(
        "extract", clip, "-o", tmp_path / "data", "-c", config, "--frames", "0:10", "--size", "32x24",
        "--split", "val", "--workers", "1",
    )  # fmt: skip
    assert "edges" in text
    document = json.loads(edgekit("status", tmp_path / "data", "--json"))
    (video,) = document["videos"]
    assert (video["size"], video["split"], document["done"], document["missing"]) == ([24, 32], "val", 10, 60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("extract", "none.mp4", "-o", "{out}"), "no video at none.mp4"),
        (("extract", "{clip}", "-o", "{out}", "--frames", "5"), "not a span"),
        (("extract", "{clip}", "-o", "{out}", "--frames", "5:2"), "holds no frame"),
        (("extract", "{clip}", "-o", "{out}", "--frames", "9000:9100"), "has 70 frames; none from 9000 on"),
        (("extract", "{clip}", "world:1?frames=3", "-o", "{out}", "--frames", "9000:9100"), "none from 9000 on"),
        (("extract", "{clip}", "-o", "{out}", "--size", "big"), "not a size"),
        (("extract", "{clip}", "-o", "{out}", "--size", "2x2"), "not a size"),
        (("extract", "{clip}", "-o", "{out}", "--split", "trian"), "not a split"),
        (("extract", "{clip}", "-o", "{out}", "--only", "cany"), "no modality 'cany'"),
        (("extract", "{clip}", "-o", "{out}", "-c", "none.toml"), "cannot be read"),
        (("extract", "{clip}", "-o", "{clip}"), "is not a data set"),
        (("import", "frames", "none", "-o", "{out}"), "no folder rgb/"),
        (("import", "vre", "none", "-o", "{out}"), "no folder none"),
        (("import", "vre", "none", "-o", "{out}", "--taxonomy", "x"), "names no taxonomy"),
        (("import", "vre", "{vre}", "-o", "{out}", "--split", "trian"), "not a split"),
        (("import", "vre", "{vre}", "-o", "{out}", "--taxonomy", "canny=camvit"), "no taxonomy 'camvit'"),
        (("export", "none", "-o", "{out}"), "no data set"),
        (("export", "none", "-o", "{out}", "--format", "csv"), "Unknown format"),
        (("status", "none"), "no data set"),
        (("view", "none", "-o", "x.png"), "no data set"),
    ],
)
def test_mistakes_end_as_short_errors(
    clip: Path, tmp_path: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    vre = tmp_path / "vre"
    if "{vre}" in arguments:
        (vre / "canny" / "npz").mkdir(parents=True)
        np.savez_compressed(vre / "canny" / "npz" / "0.npz", np.zeros((48, 64), np.float32))
    filled = [argument.format(clip=clip, out=tmp_path / "data", vre=vre) for argument in arguments]
    with pytest.raises(EdgekitError, match=message) as caught:
        edgekit(*filled)
    assert len(str(caught.value).splitlines()) <= 2
    assert not (tmp_path / "data").exists()


def test_failures_are_listed_by_status(clip: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from edgekit_experts.expert import Expert\n"
        "from edgekit_runtime.modality import Kind, Modality\n"
        "class Mine(Expert):\n"
        "    def produces(self, inputs): return Modality('mine', Kind.IMAGE, 3)\n"
        "    def compute(self, batch):\n"
        "        if batch.first == 3: raise MemoryError('too large')\n"
        "        return batch.frames\n",
        encoding="utf-8",
    )
    config = tmp_path / "experts.toml"
    config.write_text(f'[mine]\nexpert = "{mine}:Mine"\n', encoding="utf-8")
    document = json.loads(edgekit("extract", clip, "-o", tmp_path / "data", "-c", config, "--frames", "3:6", "--json"))
    assert document["failed"] == 1
    assert document["videos"][0]["modalities"][0]["failures"] == {"3": "MemoryError: too large (mine.py, line 6)"}


def test_failures_of_one_kind_are_one_line_and_a_modality_that_never_came_ends_the_command(
    clip: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from edgekit_experts.expert import Expert\n"
        "from edgekit_runtime.modality import Kind, Modality\n"
        "class Mine(Expert):\n"
        "    def produces(self, inputs): return Modality('mine', Kind.IMAGE, 3)\n"
        "    def compute(self, batch):\n"
        "        raise MemoryError('too large')\n",
        encoding="utf-8",
    )
    config = tmp_path / "experts.toml"
    config.write_text(f'[rgb]\nexpert = "rgb"\n[mine]\nexpert = "{mine}:Mine"\n', encoding="utf-8")
    out = tmp_path / "data"
    edgekit("extract", clip, "-o", out, "--only", "rgb", "-c", config, "--frames", "0:2")
    command = [sys.executable, "-m", "edgekit", "extract", clip, "-o", out, "-c", config, "--frames", "0:12"]
    run = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert run.returncode == 1
    assert "Not one frame could be made of mine (clip)" in run.stderr
    assert "failed: clip, mine, frames 0–11: MemoryError: too large (mine.py, line 6)" in run.stderr
    assert run.stderr.count("too large") == 1
    (video,) = json.loads(edgekit("status", out, "--json"))["videos"]
    rows = {row["name"]: row for row in video["modalities"]}
    assert list(rows["mine"]["failures"]) == [str(number) for number in range(12)]
    assert rows["rgb"]["done"] == 12, "the rest went on"


def test_view_writes_what_its_ending_says(clip: Path, tmp_path: Path) -> None:
    edgekit("extract", clip, "-o", tmp_path / "data", "--frames", "0:4")
    document = json.loads(edgekit("view", tmp_path / "data", "-o", tmp_path / "x.png", "--frame", "2", "--json"))
    assert document["modalities"] == ["rgb", "hsv", "dis_flow", "canny"]
    assert (document["frames"], document["missing"]) == ([2, 3], {})
    edgekit("view", tmp_path / "data", "-o", tmp_path / "x.mp4", "--frames", "0:4", "--only", "rgb,canny")
    assert (tmp_path / "x.png").stat().st_size > 1000
    assert (tmp_path / "x.mp4").stat().st_size > 1000
    for arguments, message in (
        (("x.gif",), "neither .png nor .mp4"),
        (("x.png", "--frame", "70"), r"Frame 70 is not there: clip has 70 frames.\nMade are frames 0–3;"),
        (("x.png", "--frame", "4"), r"Frame 4 is not there: clip has 70 frames.\nMade are frames 0–3;"),
        (("x.mp4", "--frames", "80:90"), r"None of the frames 80:90 is there: clip has 70"),
        (("x.mp4", "--frames", "4:9"), r"None of the frames 4:9 is there.*\nMade are frames 0–3"),
        (("x.png", "--video", "clop"), "no video 'clop'"),
        (("x.png", "--only", "rbg"), "no modality 'rbg'"),
    ):
        with pytest.raises(EdgekitError, match=message):
            edgekit("view", tmp_path / "data", "-o", *arguments)


def test_view_says_what_it_drew_and_what_was_not_there(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    edgekit("extract", clip, "-o", data, "--frames", "0:4", "--only", "rgb,canny")
    edgekit("extract", clip, "-o", data, "--frames", "10:11", "--only", "rgb")

    def said(*arguments: str) -> list[str]:
        main(["view", str(data), "-o", *arguments])
        return capsys.readouterr().err.splitlines()

    drawn = tmp_path / "x.png"
    assert said(str(drawn)) == [f"{drawn}: frame 2 of clip: rgb, canny"]
    assert said(str(drawn), "--frame", "10") == [
        f"{drawn}: frame 10 of clip: rgb, canny",
        "Not there, so left black: canny.",
    ]
    film = tmp_path / "x.mp4"
    assert said(str(film), "--frames", "2:11")[1:] == [
        f"{film}: frames 2 to 10 of clip: rgb, canny",
        "Not there, so left black: rgb (6 frames), canny (7 frames).",
    ]
    assert "Made are frames 0–3, 10;" in said(str(drawn), "--frame", "7")[1]


def test_status_is_readable_at_80_columns(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = clip.with_name("a_recording_with_a_name_as_cameras_give_them_2024-05-17T10-33-12.mp4")
    clip.rename(long)
    data = tmp_path / "data"
    main(["extract", str(long), "-o", str(data), "--frames", "0:4", "--only", "rgb,dis_flow"])
    capsys.readouterr()
    main(["status", str(data)])
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == f"{long.stem}: 70 frames, 64x48, 25 fps, train"
    assert lines[1].split() == ["modality", "expert", "done", "not", "made", "failed", "stale", "MB"]
    assert lines[2].split()[:4] == ["dis_flow", "dis_flow", "4", "66"]
    assert said.err.startswith("Not made: not asked for")
    assert max(len(line) for line in lines[1:]) <= 80
    main(["extract", str(long), "-o", str(data)])
    assert "Not made" not in capsys.readouterr().err


def test_a_folder_of_videos_is_told_from_one_of_pictures(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgekitError, match="is a folder of videos") as caught:
        edgekit("extract", clip.parent, "-o", tmp_path / "data")
    assert f"{clip.parent}/*.mp4" in caught.value.hint
    assert not (tmp_path / "data").exists()


def test_import_and_export(clip: Path, tmp_path: Path) -> None:
    edgekit("extract", clip, "-o", tmp_path / "data", "--only", "canny")
    exported = json.loads(edgekit("export", tmp_path / "data", "-o", tmp_path / "npz", "--json"))
    assert exported["files"] == 70
    imported = json.loads(edgekit("import", "vre", tmp_path / "npz", "-o", tmp_path / "again", "--json"))
    assert (imported["done"], imported["videos"][0]["name"]) == (70, "clip")


def test_a_configuration_is_drawn() -> None:
    assert edgekit("experts", "graph").startswith("graph LR")


def test_a_configuration_for_flights_is_drawn_without_being_told(tmp_path: Path) -> None:
    config = tmp_path / "experts.toml"
    config.write_text(
        '[labels]\nexpert = "given"\nof = "labels"\n[sharp]\nexpert = "simulated_sharp"\n'
        '[depth]\nexpert = "simulated_depth"\n',
        encoding="utf-8",
    )
    drawn = edgekit("experts", "graph", "-c", config)
    assert "source_true_depth([true_depth]) --> depth" in drawn
    assert drawn == edgekit("experts", "graph", "-c", config, "--world")
    config.write_text('[sharp]\nexpert = "simulated_sharp"\n[edges]\nexpert = "cany"\n', encoding="utf-8")
    with pytest.raises(EdgekitError, match="no expert 'cany'"):
        edgekit("experts", "graph", "-c", config)


def test_a_flight_takes_the_set_of_the_world(tmp_path: Path) -> None:
    document = json.loads(edgekit("extract", "world:5?frames=3&size=160x96", "-o", tmp_path / "data", "--json"))
    rows = {row["name"]: row for row in document["videos"][0]["modalities"]}
    assert {"rgb", "labels", "vote", "simulated_depth", "normals", "dis_flow"} <= rows.keys()
    assert all(row["done"] == 3 for row in rows.values())
    assert rows["labels"]["truth"]
    assert not rows["vote"]["truth"]
