"""The accuracy gate: the fastest that passes ships, and a failure says by how much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit import gate
from edgekit.candidates import Candidate, Measured
from edgekit.judging import Fidelity
from edgekit.profiles import Profile
from edgekit.targets import Target
from edgekit_runtime.errors import BuildError
from edgekit_runtime.manifest import Variant


def _row(precision: str, ms: float, drop: float = 0.0, agreement: float = 0.99, engine: str = "openvino") -> Measured:
    candidate = Candidate(Target(engine), Variant(engine, "CPU", precision, "model.xml"), {"model.xml": b"x"})
    return Measured(candidate, ms, ms * 1.2, 0.7 - drop, drop, Fidelity(0.99), Fidelity(agreement), fps=1e3 / ms)


def _depth_row(precision: str, ms: float, error: float, original: float = 0.001) -> Measured:
    candidate = Candidate(Target("openvino"), Variant("openvino", "CPU", precision, "model.xml"), {"model.xml": b"x"})
    return Measured(
        candidate, ms, ms, None, None, Fidelity(depth_error=error), Fidelity(depth_error=original), fps=1e3 / ms
    )


def test_depth_that_is_shifted_too_far_does_not_ship(profile: Profile) -> None:
    rows = [_depth_row("int8", 4, 0.05), _depth_row("bf16", 7, 0.004), _depth_row("fp32", 20, 0.0)]
    assert gate.require(rows, profile) is rows[1]
    assert gate.verdict(rows[0], profile) == "shifts depth by 5.00 % (allowed: 2 %)"
    table = gate.candidate_table(rows, profile, rows[1], (), "miou")
    assert [row["accuracy"] for row in table] == [0.95, 0.996, 1.0]
    assert {row["agreement"] for row in table} == {None}


def test_depth_is_judged_beside_labels(profile: Profile) -> None:
    good = _row("int8", 4)
    shifted = replace(good, baseline=Fidelity(0.99, 0.3))
    assert (gate.verdict(good, profile), gate.verdict(shifted, profile)) == (
        "",
        "shifts depth by 30.00 % (allowed: 2 %)",
    )
    undefined = replace(good, baseline=Fidelity(0.99, float("nan")))
    assert "shifts depth" in gate.verdict(undefined, profile)


def test_the_fastest_that_loses_little_enough_ships(profile: Profile) -> None:
    rows = [_row("int8", 4, drop=0.02), _row("bf16", 7, drop=0.003), _row("fp32", 20)]
    assert gate.require(rows, profile) is rows[1]


def test_int8_that_is_slower_does_not_ship(profile: Profile) -> None:
    rows = [_row("int8", 158), _row("fp32", 105)]
    assert gate.require(rows, profile) is rows[1]


def test_a_candidate_that_is_not_the_network_does_not_ship_however_well_it_scores(profile: Profile) -> None:
    rows = [_row("int8", 4, drop=-0.01, agreement=0.5), _row("fp32", 20)]
    assert gate.require(rows, profile) is rows[1]


def test_exactly_the_allowed_drop_passes(profile: Profile) -> None:
    assert gate.verdict(_row("int8", 4, drop=0.005), profile) == ""
    assert "0.60 points" in gate.verdict(_row("int8", 4, drop=0.006), profile)


def test_the_baseline_ships_only_where_the_profile_lists_it(profile: Profile) -> None:
    only_int8 = profile.model_copy(update={"precisions": ("int8",)})
    with pytest.raises(BuildError, match=r"int8 loses 2\.00 points of mIoU \(allowed: 0\.5\)\.") as caught:
        gate.require([_row("int8", 4, drop=0.02), _row("fp32", 20)], only_int8)
    assert "fp32" in caught.value.hint


def test_a_failure_says_of_each_candidate_what_was_measured_and_what_is_allowed(profile: Profile) -> None:
    rows = [_row("int8", 4, drop=0.0346), _row("bf16", 7, agreement=0.72), _row("fp32", 20)]
    with pytest.raises(BuildError) as caught:
        gate.require(rows, profile.model_copy(update={"precisions": ("int8", "bf16")}))
    assert caught.value.args[0] == (
        "No candidate passed the accuracy gate of small: openvino int8 loses 3.46 points of mIoU (allowed: 0.5); "
        "openvino bf16 agrees with the original in 72.00 % of the pixels (asked for: 90 %)."
    )


def test_what_is_beyond_the_limit_by_a_hair_does_not_read_as_the_limit(profile: Profile) -> None:
    assert gate.verdict(_row("int8", 4, drop=0.005004), profile) == "loses 0.5004 points of mIoU (allowed: 0.5)"
    assert "89.998 % of" in gate.verdict(_row("int8", 4, agreement=0.89998), profile)


def test_the_fallback_is_chosen_by_the_same_rule_and_may_be_absent(profile: Profile) -> None:
    rows = [_row("int8", 4), _row("int8", 9, drop=0.1, engine="onnxruntime"), _row("fp32", 30, engine="onnxruntime")]
    assert gate.choose(rows, profile, Target("onnxruntime")) is rows[2]
    assert gate.choose(rows[:2], profile, Target("onnxruntime")) is None


def test_where_nothing_could_be_timed_the_first_of_the_ladder_that_passes_ships(profile: Profile) -> None:
    rows = [_row("fp32", 20), _row("int8", 4, drop=0.02), _row("bf16", 7)]
    blind = [replace(row, p50_ms=None, p95_ms=None) for row in rows]
    assert gate.require(blind, profile) is blind[2]
    assert [row["p50_ms"] for row in gate.candidate_table(blind, profile, blind[2], (), "miou")] == [None] * 3


def test_for_throughput_the_one_with_most_frames_a_second_ships(profile: Profile) -> None:
    quick, many = replace(_row("int8", 4), fps=250.0), replace(_row("bf16", 7), fps=400.0)
    assert gate.require([quick, many], profile) is quick
    assert gate.require([quick, many], profile.model_copy(update={"hint": "throughput"})) is many


def test_an_export_that_differs_from_pytorch_stops_the_build() -> None:
    gate.check_export(_row("fp32", 20, agreement=0.999), "PyTorch")
    gate.check_export(_depth_row("fp32", 20, 0.0), "PyTorch")
    with pytest.raises(BuildError, match=r"differs from PyTorch: depth is off by 3\.00%"):
        gate.check_export(_depth_row("fp32", 20, 0.0, original=0.03), "PyTorch")
    with pytest.raises(BuildError, match=r"differs from PyTorch: 93\.00%"):
        gate.check_export(_row("fp32", 20, agreement=0.93), "PyTorch")
