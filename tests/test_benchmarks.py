"""The harness of benchmarks/: its flag, its ratios, its verdicts. No timing is checked, it is given or made up."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import check
import harness
import machine
import numpy as np
import peer
import pytest
import results

BENCHMARKS = Path(machine.__file__).parent
MEASURED = """
def test_something(benchmark):
    benchmark.pedantic(sum, args=([1, 2],), rounds=2)
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a folder with one benchmark and the plug-in of the flag."""
    (folder / "test_it.py").write_text(MEASURED, encoding="utf-8")
    for module in ("json_flag.py", "machine.py"):
        shutil.copy(BENCHMARKS / module, folder)
    options = ["-c", "/dev/null", "--rootdir", str(folder), "-p", "json_flag", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.parametrize("given", [[], ["=out/mine.json"], [" out/mine.json"]], ids=["bare", "equals", "space"])
def test_the_flag_writes_for_this_machine_or_where_it_is_told(tmp_path: Path, given: list[str]) -> None:
    flag = "".join(["--benchmark-json", *given]).split(" ")
    assert run_pytest(tmp_path, "test_it.py", *flag).returncode == 0
    path = tmp_path / ("out/mine.json" if given else f"results/{machine.name()}.json")
    assert [entry["name"] for entry in json.loads(path.read_text(encoding="utf-8"))["benchmarks"]] == ["test_something"]


def test_the_bare_flag_does_not_take_what_is_to_be_run_for_its_file(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, "--benchmark-json", "test_it.py")
    assert said.returncode == 4
    assert "put it before the flag" in said.stderr
    assert (tmp_path / "test_it.py").read_text(encoding="utf-8") == MEASURED


def test_a_machine_is_described_without_its_name() -> None:
    told = json.dumps(machine.describe())
    assert json.loads(told)["cores"] >= 1
    assert Path("/proc/sys/kernel/hostname").read_text(encoding="utf-8").strip() not in told


def test_contenders_take_turns() -> None:
    order: list[str] = []
    turns = harness.Turns({name: lambda name=name: order.append(name) for name in "ab"}, warm_up=2)
    assert order == ["a", "a", "b", "b"]
    order.clear()
    for _ in range(2):
        for name in "ab":
            turns.take(name)
    # What is fast is run once before, untimed.
    assert order == [*"aabb", *"aabb"]
    assert [len(turns.spent[name]) for name in "ab"] == [2, 2]


def test_ratios_are_those_of_each_turn() -> None:
    """The machine was three times as slow in the second turn, for both."""
    told = harness.told({"ours": [1.0, 3.0, 1.0], "theirs": [4.0, 12.0, 4.0]})
    assert told["times_as_fast"]["theirs"] == {"median": 4.0, "q1": 4.0, "q3": 4.0, "count": 3}
    assert told["ms"]["ours"]["median"] == 1000


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_growth_is_fitted(exponent: float) -> None:
    points = {x: 0.3 * x**exponent for x in (1.0, 2.0, 4.0, 15.0)}
    assert harness.growth(points)["exponent"] == pytest.approx(exponent, abs=1e-3)


def test_a_peer_times_itself_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "python_of", lambda environment: Path(sys.executable))
    script = f"import sys; sys.path.insert(0, {str(peer.SCRIPTS)!r})\nfrom serve import serve\n"
    (tmp_path / "it.py").write_text(
        script + "print('noise'); serve(lambda: None, version=sys.argv[1])", encoding="utf-8"
    )
    with peer.Peer("any", str(tmp_path / "it.py"), "1.2") as running:
        assert running.about == {"version": "1.2"}
        assert 0 <= running.seconds() < 60


def test_a_peer_that_does_not_come_up_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "python_of", lambda environment: Path(sys.executable))
    (tmp_path / "it.py").write_text("raise RuntimeError('no such thing')", encoding="utf-8")
    with pytest.raises(peer.PeerMissingError, match="no such thing"):
        peer.Peer("any", str(tmp_path / "it.py"))


def document(name: str = "this", *, ratio: float = 8.0, spread: float = 1.0, exponent: float = 1.0) -> dict[str, Any]:
    found = {"median": ratio, "q1": ratio - spread, "q3": ratio + spread}
    grown = {"exponent": exponent, "points": {}}
    entry = {"fullname": "a", "extra_info": {"times_as_fast": {"torch": found}, "growth": {"seconds": grown}}}
    return {"machine_info": {"name": name}, "benchmarks": [entry]}


def verdict(tmp_path: Path, now: dict[str, Any], before: dict[str, Any]) -> int:
    for name, each in (("now", now), ("before", before)):
        (tmp_path / name).write_text(json.dumps(each), encoding="utf-8")
    return check.main([str(tmp_path / "now"), "--baseline", str(tmp_path / "before")])


def test_a_ratio_that_fell_is_slower(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(tmp_path, document(ratio=5), document(ratio=8)) == 1
    assert "a, times as fast as torch: 8 -> 5" in capsys.readouterr().out
    assert verdict(tmp_path, document(exponent=1.4), document(exponent=1)) == 1


def test_noise_is_not(tmp_path: Path) -> None:
    assert verdict(tmp_path, document(ratio=7), document(ratio=8)) == 0
    assert verdict(tmp_path, document(ratio=5), document(ratio=8, spread=4)) == 0
    assert verdict(tmp_path, document(ratio=12), document(ratio=8)) == 0


def test_nothing_to_compare_with_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "now").write_text(json.dumps(document()), encoding="utf-8")
    assert check.main([str(tmp_path / "now"), "--baseline", str(tmp_path / "none")]) == 2
    assert "no baseline" in capsys.readouterr().err


def test_part_of_the_benchmarks_may_be_run_again(tmp_path: Path) -> None:
    earlier, now = document(ratio=8), document(ratio=9)
    earlier["benchmarks"].append({"fullname": "b", "extra_info": {}})
    (tmp_path / "kept.json").write_text(json.dumps(earlier), encoding="utf-8")
    results.keep(now, tmp_path / "kept.json")
    assert [entry["fullname"] for entry in now["benchmarks"]] == ["a", "b"]
    assert next(results.ratios(now)).median == 9


def test_operations_of_a_network_are_counted() -> None:
    pytest.importorskip("openvino")
    import openvino
    import roofline
    from openvino import opset13 as ov

    picture = ov.parameter([1, 3, 8, 10], np.float32)
    kernel = ov.constant(np.zeros((16, 3, 3, 3), np.float32))
    found = ov.convolution(picture, kernel, [2, 2], [1, 1], [1, 1], [1, 1])
    work = roofline.work_of(openvino.Model([found], [picture]), "int8")
    assert work.operations == 2 * 16 * 3 * 9 * 4 * 5
    assert work.bytes == 3 * 80 + 16 * 27 + 16 * 20
