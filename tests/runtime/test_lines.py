"""The json sink: a line a frame that scripts can rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import TAXONOMY, expected_labels

from edgekit_runtime import load, open_source
from edgekit_runtime.errors import SinkError, UsageError
from edgekit_runtime.sinks import check_sinks, open_sink
from edgekit_runtime.sinks.base import SinkContext
from edgekit_runtime.sinks.lines import parse, run_lengths


def decoded(mask: dict) -> np.ndarray:
    """What COCO's tools would make of it."""
    flat = np.repeat(np.arange(len(mask["counts"])) % 2, mask["counts"])
    return flat.reshape(mask["size"], order="F").astype(bool)


def test_lines_say_what_the_network_said(edgekit_run, small_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out.jsonl"
    source = "test:?fps=0&size=96x64&frames=5"
    done = edgekit_run(small_bundle, "--source", source, "--sink", f"json:{out}?masks=1", "--sink", "null")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["index"] for line in lines] == list(range(5))
    with open_source(source) as frames, load(small_bundle) as model:
        for line, frame in zip(lines, frames, strict=True):
            labels = expected_labels(frame.image)
            assert {mask["class"] for mask in line["masks"]} == {TAXONOMY.classes[n] for n in np.unique(labels)}
            for mask in line["masks"]:
                number = TAXONOMY.classes.index(mask["class"])
                assert (decoded(mask) == (labels == number)).all()
                assert line["areas"][mask["class"]] == pytest.approx((labels == number).mean(), abs=1e-5)
            depth = model(frame).depth
            assert line["depth"]["max"] == pytest.approx(depth.max(), abs=1e-3)
            assert line["depth"]["unit"] == "relative"
    assert abs(sum(lines[0]["areas"].values()) - 1) < 1e-4


def test_a_second_run_appends(edgekit_run, small_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    for _ in range(2):
        edgekit_run(small_bundle, "--source", "test:?fps=0&size=96x64&frames=2", "--sink", f"json:{out}")
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 0, 1]
    assert "masks" not in lines[0]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([[0, 0], [0, 0]], [4]),
        ([[1, 1], [1, 1]], [0, 4]),
        ([[1, 0], [0, 0]], [0, 1, 3]),
        ([[0, 1], [1, 0]], [1, 2, 1]),  # column by column
    ],
)
def test_run_lengths_are_those_of_coco(mask: list[list[int]], expected: list[int]) -> None:
    assert run_lengths(np.array(mask, bool)) == expected


def test_bad_input(tmp_path: Path) -> None:
    assert parse("a.jsonl?masks=1") == (Path("a.jsonl"), True)
    for argument in ("", "a?mask=1", "?masks=1"):
        with pytest.raises(UsageError, match="is not a file"):
            check_sinks([f"json:{argument}"])
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SinkError, match="cannot be written"):
        open_sink(f"json:{tmp_path}/file/x.jsonl", SinkContext())
    with pytest.raises(SinkError, match="cannot be written"):
        open_sink(f"json:{tmp_path}", SinkContext())


def test_on_a_full_disk_the_last_line_is_whole(small_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    arguments = [str(small_bundle), "--source", "test:?fps=0&size=96x64&frames=4000", "--sink", f"json:{out}"]
    limited = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from edgekit_runtime.cli import main
raise SystemExit(main({arguments!r}))
"""
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert done.stderr.count("cannot be written") == 1
    text = out.read_text(encoding="utf-8")
    assert all(json.loads(line) for line in text.splitlines())
    assert not text or text.endswith("\n")
