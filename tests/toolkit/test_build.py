"""`edgekit build`: what ships runs, agrees with PyTorch, passed the gate, and is there whole or not at all."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from edgekit.build import Built, build_student
from edgekit.candidates import make_form
from edgekit.commands.outcome import show
from edgekit.deployable import of_student
from edgekit.export import Exporter
from edgekit.locate import DEFAULT_BUNDLE
from edgekit.material import gather
from edgekit.profiles import Profile, load_profile
from edgekit.quantise import WAYS, quantise_within
from edgekit.targets import Target, absent
from edgekit_experts.taxonomies import CAMVID, DRONESCAPES
from edgekit_runtime import load
from edgekit_runtime.errors import BuildError, CheckpointError
from edgekit_student.student import load_student


def test_the_bundle_runs_and_agrees_with_pytorch(
    built: Built, student_folder: Path, profile: Profile, flight_frames: tuple[np.ndarray, np.ndarray]
) -> None:
    exporter = Exporter(of_student(load_student(student_folder)), profile)
    with load(built.bundle) as model:
        for rgb in flight_frames[0][:4]:
            bgr = np.ascontiguousarray(rgb[..., ::-1])
            labels = model(bgr).labels
            assert labels is not None
            assert labels.shape == (24, 40)
            assert np.mean(labels == exporter.reference(bgr)["labels"]) > 0.9


def test_every_engine_of_the_bundle_gives_the_same_classes(
    built: Built, flight_frames: tuple[np.ndarray, np.ndarray]
) -> None:
    assert [variant.engine for variant in built.manifest.variants] == ["openvino", "onnxruntime"]
    bgr = np.ascontiguousarray(flight_frames[0][0][..., ::-1])
    with load(built.bundle, engine="openvino") as first, load(built.bundle, engine="onnxruntime") as second:
        assert np.mean(first(bgr).labels == second(bgr).labels) > 0.9


def test_the_manifest_has_the_whole_table_and_where_everything_comes_from(built: Built) -> None:
    rows = {(row["engine"], row["precision"]): row for row in built.candidates}
    assert {precision for engine, precision in rows if engine == "onnxruntime"} == {"int8", "fp32"}
    assert rows["openvino", "fp32"]["accuracy_drop"] == 0
    assert rows["openvino", "fp32"]["agreement"] > 0.995
    chosen = [row for row in rows.values() if row["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["p50_ms"] == min(
        row["p50_ms"] for row in rows.values() if row["engine"] == "openvino" and not row["rejected"]
    )
    provenance = built.manifest.provenance
    assert len(provenance["data"]["calibration_sha256"]) == 12
    assert {"edgekit", "openvino", "nncf", "torch"} <= provenance["tools"].keys()
    assert str(Path.home()) not in built.manifest.to_json()


def test_a_page_shows_what_was_tried_what_ships_and_what_it_says(built: Built) -> None:
    page = built.report.read_text(encoding="utf-8")
    assert built.report.name == "edge-150k-report.html"
    chosen = next(row for row in built.candidates if row["chosen"])
    assert f'<tr class="ships">\n<td class="text">{chosen["engine"]} {chosen["precision"]}</td>' in page
    assert page.count("<img ") == 3 * 4, "frame, PyTorch and bundle, of four frames"
    assert "% of the pixels have the same class" in page
    assert all(name in page for name in DRONESCAPES.classes)
    assert page.count("<circle") == len(built.candidates)
    assert re.search(r"\d+ layers? in (I8|U8|BF16|FP32)", page), "the precision of each layer"
    assert "unknown precision" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_labels_are_judged_by_where_there_are_any(built: Built) -> None:
    assert built.candidates[0]["accuracy_metric"] == "miou"
    assert 0.05 < built.candidates[0]["accuracy"] < 1


def test_int8_that_ruins_accuracy_does_not_ship(
    fragile_student_folder: Path, profile: Profile, data: Path, tmp_path: Path
) -> None:
    built = build_student(fragile_student_folder, profile, tmp_path, data)
    rows = {row["precision"]: row for row in built.candidates if row["engine"] == "openvino"}
    assert "points of mIoU" in rows["int8"]["rejected"]
    assert built.manifest.variants[0].precision in ("mixed", "bf16", "fp32")
    assert all(variant.precision != "int8" for variant in built.manifest.variants)


def test_what_one_way_of_quantising_ruins_another_may_save(
    student_folder: Path, profile: Profile, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ways are tried in their order until one stays within what is allowed; else the nearest is taken."""
    exporter = Exporter(of_student(load_student(student_folder)), profile)
    frames = gather(data, DRONESCAPES, (96, 160), 4, 1).calibration
    losses = iter([3.0, 0.5, 9.0])
    model, way, _ = quantise_within(exporter.openvino, frames, WAYS, lambda form: next(losses))
    assert way == WAYS[1]
    assert any(operation.get_type_name() == "FakeQuantize" for operation in model.get_ops())
    losses = iter([3.0, 4.0, 2.0, 2.5])
    assert quantise_within(exporter.onnx, frames, WAYS, lambda form: next(losses)).way == WAYS[2]
    assert quantise_within(exporter.openvino, frames, WAYS, lambda form: 60.0).way == WAYS[0], "hopeless"
    monkeypatch.setattr("edgekit.quantise.MOST_QUANTISERS", 3)
    assert quantise_within(exporter.openvino, frames, WAYS, lambda form: 3.0).way == WAYS[0], "large networks: one way"


def test_mixed_precision_saves_what_int8_ruins(
    fragile_student_folder: Path, student_folder: Path, profile: Profile, data: Path, tmp_path: Path
) -> None:
    """The layers that INT8 ruins go back to float; where it ruins none, nothing is tried."""
    ladder = profile.model_copy(update={"precisions": ("int8", "mixed", "fp32"), "fallbacks": ()})
    built = build_student(fragile_student_folder, ladder, tmp_path / "fragile", data)
    rows = {row["precision"]: row for row in built.candidates}
    assert rows["int8"]["rejected"]
    assert not rows["mixed"]["rejected"], rows["mixed"]
    easy = ladder.model_copy(update={"allowed_drop_points": 50.0})
    sound = build_student(student_folder, easy, tmp_path / "sound", data)
    assert [(skip.candidate, skip.reason) for skip in sound.skipped] == [("openvino mixed", "int8 loses little enough")]


def test_when_nothing_passes_the_build_fails_says_by_how_much_and_writes_nothing(
    fragile_student_folder: Path, profile: Profile, data: Path, tmp_path: Path
) -> None:
    only_int8 = profile.model_copy(update={"precisions": ("int8",), "fallbacks": ()})
    with pytest.raises(BuildError, match=r"int8 loses \d+\.\d+ points of mIoU \(allowed: 0\.5\)"):
        build_student(fragile_student_folder, only_int8, tmp_path, data)
    assert list(tmp_path.iterdir()) == []


def test_equal_inputs_give_equal_bytes(student_folder: Path, profile: Profile, data: Path) -> None:
    """What is written with them is sorted and dated by the manifest alone: see test_bundle_writing."""
    frames = gather(data, DRONESCAPES, (96, 160), 4, 1)

    def forms() -> list[dict[str, bytes]]:
        exporter = Exporter(of_student(load_student(student_folder)), profile)
        return [dict(make_form(exporter, target.engine, "int8", frames).files) for target in profile.targets]

    assert forms() == forms()


def test_two_builds_differ_in_nothing_but_what_was_timed(
    student_folder: Path, profile: Profile, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    one_form = profile.model_copy(update={"precisions": ("fp32",)})

    def built(name: str) -> dict[str, Any]:
        table = json.loads(build_student(student_folder, one_form, tmp_path / name, data).manifest.to_json())
        for row in (*table["variants"], *table["candidates"]):
            for timed in ("p50_ms", "p95_ms", "fps"):
                row.pop(timed, None)
        return table

    assert built("a") == built("b")


def test_a_data_set_calibrates_and_its_val_split_judges(built: Built) -> None:
    provenance = built.manifest.provenance["data"]
    assert provenance["kind"] == "dataset"
    assert (provenance["calibration_frames"], provenance["judged_frames"]) == (12, 8)


def test_without_labels_in_the_students_classes_candidates_are_compared_with_fp32(
    student_folder: Path,
    profile: Profile,
    flight_frames: tuple[np.ndarray, np.ndarray],
    make_dataset: Callable[..., Path],
    tmp_path: Path,
) -> None:
    data = make_dataset(tmp_path / "data", *flight_frames, CAMVID)
    floats = profile.model_copy(update={"precisions": ("bf16", "fp32"), "fallbacks": ()})
    built = build_student(student_folder, floats, tmp_path / "out", data)
    rows = {row["precision"]: row for row in built.candidates}
    assert rows["fp32"]["accuracy_metric"] == "miou against fp32"
    assert rows["fp32"]["accuracy"] == 1.0
    assert 0.5 < rows["bf16"]["accuracy"] <= 1.0
    page = built.report.read_text(encoding="utf-8")
    assert "<th>IoU % with fp32's</th>" in page
    assert "IoU %, fp32" not in page, "float32 agrees with itself: nothing to show"


def test_a_student_that_has_learnt_nothing_is_built_with_a_warning_that_run_repeats(
    edgekit: Callable[..., Any],
    student_folder: Path,
    profile_file: Path,
    data: Path,
    flight_frames: tuple[np.ndarray, np.ndarray],
    make_dataset: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = load_student(student_folder)
    with torch.no_grad():  # whatever it sees: the third class
        head = [module for module in student.network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        head.weight.zero_()
        head.bias.zero_()
        head.bias[2] = 9.0
    student.save(tmp_path / "student")
    monkeypatch.chdir(tmp_path)
    answer = edgekit("build", "--profile", profile_file, "--data", data)
    assert answer.status == 0, answer.err
    wrapped = " ".join(answer.err.split())
    assert "Student: student, the newest below this folder" in wrapped
    assert "Warning: this student has learnt little: its mIoU against the labels is only" in wrapped
    assert f"it answers {DRONESCAPES.classes[2]!r} for 100.0% of all pixels" in wrapped
    # Without labels to judge by, what was found when it was distilled is handed on.
    config = json.loads((tmp_path / "student" / "config.json").read_text(encoding="utf-8"))
    config["provenance"]["learnt"] = {"frames": 6, "miou": 0.1, "doubts": ["it was a bad pupil"]}
    (tmp_path / "student" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    bare = make_dataset(tmp_path / "bare", *flight_frames, CAMVID)
    again = json.loads(edgekit("build", "--profile", profile_file, "--data", bare, "--json").out)
    assert again["doubts"][-1] == "it was a bad pupil"
    ran = edgekit("run", "--source", "test:?fps=0", "--frames", "2", "--sink", "null")
    assert ran.status == 0, ran.err
    assert "bad pupil" in ran.err
    assert "Warning: this student has learnt little" in ran.err
    assert f"The one that comes with edgekit: --bundle {DEFAULT_BUNDLE}" in ran.err


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (200, ["candidate", "p50 ms", "p95 ms", "mIoU %", "lost", "agree %", "kB", "verdict"]),
        (80, ["candidate", "p50 ms", "p95 ms", "mIoU %", "lost", "agree %", "kB", "verdict"]),
        (60, ["candidate", "p50 ms", "mIoU %", "lost", "agree %", "verdict"]),
        (46, ["candidate", "p50 ms", "mIoU %", "verdict"]),
    ],
)
def test_the_table_of_a_build_fits_into_the_terminal(
    width: int, columns: list[str], built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there is no room for is left out whole, and named."""
    page = Console(width=width, file=io.StringIO(), color_system=None)
    monkeypatch.setattr("edgekit.commands.outcome.console", page)
    show(built)
    lines = page.file.getvalue().splitlines()
    head = next(line for line in lines if line.startswith("candidate"))
    assert re.split(r" {2,}", head.strip()) == columns
    rows = [line.rstrip() for line in lines if re.match(r"(openvino|onnxruntime) \S+ +[\d–]", line)]
    assert sum("ships" in line for line in rows) == 1
    assert sum("fallback" in line for line in rows) == 1
    assert not any("…" in line for line in lines)
    assert max(map(len, rows)) <= width
    assert ("Too narrow here for p95 ms, kB: the report" in " ".join(lines)) == (width == 60)


def test_generic_cpu_builds_for_onnx_runtime_alone(student_folder: Path, data: Path, tmp_path: Path) -> None:
    small = tmp_path / "any.toml"
    small.write_text(
        'inherits = "generic-cpu"\ninput_size = [96, 160]\ncalibration_frames = 4\njudged_frames = 4\nthreads = 1\n',
        encoding="utf-8",
    )
    built = build_student(student_folder, load_profile(small), tmp_path / "out", data)
    assert {variant.engine for variant in built.manifest.variants} == {"onnxruntime"}
    assert built.manifest.variants[0].config["intra_op_threads"] == 1


def test_with_nothing_said_the_newest_student_and_the_world_are_taken_and_named(
    edgekit: Callable[..., Any], student_folder: Path, profile_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(student_folder.parent)
    answer = edgekit("build", "--profile", profile_file, "--json")
    assert answer.status == 0
    assert "Student: student" in answer.err
    assert "the synthetic world (labels)" in answer.err
    document = json.loads(answer.out)
    assert document["bundle"] == "build/small/edge-150k.edgekit"
    assert Path(document["bundle"]).is_file()
    assert {"precision", "p50_ms", "accuracy", "accuracy_drop", "chosen"} <= document["candidates"][0].keys()


def test_a_checkpoint_of_another_architecture_is_refused(
    student_folder: Path, profile: Profile, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.safetensors").write_bytes((student_folder / "model.safetensors").read_bytes())
    text = (student_folder / "config.json").read_text(encoding="utf-8")
    (other / "config.json").write_text(text.replace("edge-150k", "edge-430k"), encoding="utf-8")
    with pytest.raises(CheckpointError, match="do not fit"):
        build_student(other, profile, tmp_path / "out", None)


def test_weights_that_were_cut_short_are_refused(student_folder: Path, profile: Profile, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.mkdir()
    (short / "config.json").write_bytes((student_folder / "config.json").read_bytes())
    (short / "model.safetensors").write_bytes((student_folder / "model.safetensors").read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        build_student(short, profile, tmp_path / "out", None)


def test_an_output_that_cannot_be_written_is_told_before_the_work(
    edgekit: Callable[..., Any], student_folder: Path, profile_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    answer = edgekit("build", "-p", profile_file, "--student", student_folder, "-o", tmp_path / "file" / "out")
    assert answer.status == 1
    assert "cannot be written" in answer.err
    assert "Rendering" not in answer.err
    assert len(answer.err.strip().splitlines()) <= 2


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit there")
def test_a_disk_that_is_full_in_the_middle_of_a_build_is_an_error_and_leaves_no_bundle(
    student_folder: Path, profile_file: Path, data: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands in for a full disk."""
    arguments = ["build", "-p", profile_file, "--student", student_folder, "--data", data, "-o", tmp_path]
    script = textwrap.dedent(
        f"""
        import resource, signal, sys
        from edgekit.cli import main
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        sys.exit(main({[str(argument) for argument in arguments]!r}))
        """
    )
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", timeout=200, check=False
    )
    assert child.returncode == 1
    assert "Temporary files cannot be written to" in child.stderr
    assert "Internal error" not in child.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process there")
def test_an_interrupted_build_leaves_no_bundle(
    student_folder: Path, profile_file: Path, data: Path, tmp_path: Path
) -> None:
    options = ["--student", student_folder, "--data", data, "-o", tmp_path]
    command = [sys.executable, "-m", "edgekit", "build", "-p", profile_file, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "Calibrating" in line:
                break
        child.send_signal(signal.SIGINT)
        rest = child.stderr.read()
        assert child.wait(30) == 130
    assert "Interrupted" in rest
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []


def test_a_build_opens_no_connection(student_folder: Path, profile_file: Path, data: Path, tmp_path: Path) -> None:
    """In a home of its own and outside of pytest: NNCF keeps its telemetry off where it sees pytest."""
    script = textwrap.dedent(
        f"""
        import socket, sys

        def refuse(*arguments, **named):
            print("CONNECTION", arguments, flush=True)
            raise OSError("no network in this test")

        socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
        from edgekit.cli import main
        status = main(["build", "-p", {str(profile_file)!r}, "--student", {str(student_folder)!r},
                       "--data", {str(data)!r}, "-o", {str(tmp_path / "out")!r}])
        assert sys.modules["openvino_telemetry"] is None
        sys.exit(status)
        """
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {"HOME": str(home)}
    child = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, encoding="utf-8", timeout=200, check=False
    )
    assert child.returncode == 0, child.stderr
    assert "CONNECTION" not in child.stdout
    assert not (home / "intel").exists()


def test_what_this_machine_has_not_is_verified_and_never_timed(
    edgekit: Callable[..., Any], student_folder: Path, data: Path, tmp_path: Path
) -> None:
    """A bundle for a graphics unit that is not here: its variant first, without a latency, and the CPU's behind it."""
    if not absent(Target("openvino", "GPU")):
        pytest.skip("this machine has such a device")
    own = tmp_path / "igpu.toml"
    own.write_text(
        'inherits = "laptop-igpu"\ninput_size = "160x96"\ncalibration_frames = 12\njudged_frames = 8\n',
        encoding="utf-8",
    )
    shown = edgekit("build", "-p", own, "--student", student_folder, "--data", data, "-o", tmp_path / "out")
    assert shown.status == 0, shown.err
    assert re.search(r"Not timed, only verified here, with OpenVINO \S+ on CPU: OpenVINO finds no GPU here", shown.err)
    assert "Next, on the device: copy" in shown.err
    assert "Here, on openvino CPU: edgekit run --camera 0 --bundle" in shown.err
    (path,) = (tmp_path / "out").glob("*.edgekit")
    with load(path) as model:
        first, second, third = model.manifest.variants
        assert (first.engine, first.device, first.p50_ms) == ("openvino", "GPU", None)
        assert first.config["INFERENCE_PRECISION_HINT"] in ("f16", "f32")
        assert first.miou is not None
        assert (second.device, third.engine) == ("CPU", "onnxruntime")
        assert second.p50_ms is not None
        assert model.variant == second, "the runtime takes the first that it can open"
        assert "GPU" in model.skipped[0].reason
    rows = {(row["device"], row["precision"]): row for row in model.manifest.candidates if row["engine"] == "openvino"}
    assert rows["GPU", "int8"]["accuracy"] == rows["CPU", "int8"]["accuracy"]
    assert rows["GPU", "fp16"]["not_measured"]
    stand_in = r"not timed, only verified with OpenVINO \S+ on CPU \(OpenVINO finds no GPU here\); mIoU"
    assert re.search(rf"runs on +openvino GPU, \S+ {stand_in}", edgekit("bundle", "show", path).out)
    assert re.search(r"passed over +openvino GPU: .*GPU.*", edgekit("bench", path, "--frames", "10").err)


def test_a_board_that_this_is_not_gets_no_latencies_of_this_machine(
    edgekit: Callable[..., Any],
    student_folder: Path,
    profile: Profile,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pi = load_profile("raspberry-pi-5").model_copy(
        update={"input_size": profile.input_size, "calibration_frames": 12, "judged_frames": 8}
    )
    built = build_student(student_folder, pi, tmp_path, data)
    show(built)
    said = capsys.readouterr().err
    assert "Timing" not in said, "there was nothing to time"
    assert re.search(r"only verified here, with ONNX Runtime \S+ on .*: this machine is no Raspberry Pi 5\.", said)
    assert f"Next, on the device: copy {built.bundle} there (docs/devices.md), then" in said
    assert "  edgekit-run edge-150k.edgekit --camera 0" in said
    assert "edgekit run" not in said, "what is for another board is not run here"
    assert "this machine is no Raspberry Pi 5" in built.report.read_text(encoding="utf-8")
    assert all(row["p50_ms"] is None for row in built.candidates)
    assert {row["not_measured"] for row in built.candidates} == {"this machine is no Raspberry Pi 5"}
    (variant,) = built.manifest.variants
    assert variant.precision == next(row["precision"] for row in built.candidates if not row["rejected"])
    assert (variant.p50_ms, variant.config["intra_op_threads"]) == (None, 4)
