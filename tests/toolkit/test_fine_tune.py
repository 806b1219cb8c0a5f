"""`edgekit build --fine-tune`: a student that loses too much in INT8 learns to lose less, where that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_student import new_student

from edgekit.build import Built, build_student
from edgekit.deployable import Deployable, of_student
from edgekit.export import Exporter
from edgekit.fine_tune import FineTuning, Int8, _distance, fine_tune
from edgekit.material import Material, gather
from edgekit.network_input import network_rgb
from edgekit.profiles import Profile
from edgekit.quantise import TUNED, WAYS, quantise_network
from edgekit_experts.taxonomies import DRONESCAPES
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.student import Student, load_student

STEPS = 60


@pytest.fixture(scope="module")
def delicate_student_folder(tmp_path_factory: pytest.TempPathFactory, student_folder: Path) -> Path:
    """The same function in float; in INT8 two channels leave few levels to the others of their tensor."""
    folder = tmp_path_factory.mktemp("work") / "delicate"
    student = load_student(student_folder)
    first, second = student.network.stem
    with torch.no_grad():
        first.norm.weight[:2] *= 150
        first.norm.bias[:2] *= 150
        second.conv.weight[:, :2] /= 150
    student.save(folder)
    return folder


@pytest.fixture(scope="module")
def strict(profile: Profile) -> Profile:
    """What no way of quantising the delicate student reaches."""
    return profile.model_copy(
        update={"precisions": ("int8", "fp32"), "fallbacks": (), "allowed_drop_points": 3.0, "min_agreement": 0.0}
    )


@pytest.fixture(scope="module")
def material(data: Path) -> Material:
    return gather(data, DRONESCAPES, (96, 160), 12, 8)


@pytest.fixture(scope="module")
def plain(
    delicate_student_folder: Path, strict: Profile, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    return build_student(delicate_student_folder, strict, tmp_path_factory.mktemp("plain"), data)


def test_fine_tuned_weights_lose_less_than_every_other_way(
    delicate_student_folder: Path, strict: Profile, data: Path, plain: Built, tmp_path: Path
) -> None:
    before = {row["precision"]: row for row in plain.candidates}
    assert before["int8"]["rejected"]
    tuned = build_student(delicate_student_folder, strict, tmp_path, data, fine_tune_steps=STEPS)
    after = {row["precision"]: row for row in tuned.candidates}
    assert after["int8"]["quantised"] == TUNED
    assert after["int8"]["accuracy_drop"] < before["int8"]["accuracy_drop"]
    assert not after["int8"]["rejected"]
    assert after["fp32"]["accuracy"] == before["fp32"]["accuracy"], "what is compared with is the student as it was"
    told = tuned.manifest.provenance["fine_tuning"]
    assert (told["steps"], told["seed"], told["frames"]) == (STEPS, 0, 12)
    assert len(told["frames_sha256"]) == 64


def test_without_the_option_nothing_is_tuned(plain: Built) -> None:
    assert next(row for row in plain.candidates if row["precision"] == "int8")["quantised"] in WAYS
    assert "fine_tuning" not in plain.manifest.provenance


def test_where_a_way_of_quantising_loses_little_enough_nothing_is_tuned(
    student_folder: Path, profile: Profile, material: Material
) -> None:
    exporter = _exporter(student_folder, profile, steps=1)
    made = quantise_network(exporter, lambda network: network.openvino(), material.calibration, WAYS, lambda form: 0.5)
    assert made.way == WAYS[0]
    again = quantise_network(exporter, lambda network: network.onnx(), material.calibration, [made.way], lambda form: 9)
    assert again.way == made.way, "what was found for one engine is taken for the others"
    assert exporter.fine_tuning is not None
    assert not exporter.fine_tuning.done


def test_the_tuned_weights_are_trained_once_and_serve_every_engine(
    student_folder: Path, profile: Profile, material: Material
) -> None:
    exporter = _exporter(student_folder, profile, steps=1)
    frames = material.calibration
    losses = iter([*(3.0 for _ in WAYS), 2.0, 5.0, 5.0, 5.0])
    first = quantise_network(exporter, lambda network: network.openvino(), frames, WAYS, lambda form: next(losses))
    assert (first.way, first.spent) == (TUNED, 2.0)
    tuned = exporter.fine_tuned(frames)
    assert tuned is not None
    second = quantise_network(exporter, lambda network: network.onnx(), frames, [first.way], lambda form: 0.5)
    assert second.way == TUNED
    again = exporter.for_gpus.fine_tuned(frames)
    assert again is not None
    assert again.source is tuned.source


@pytest.mark.parametrize("network", ["edge-150k", "edge-150k-s2", "safeuav-150k"])
def test_a_network_learns_to_say_in_int8_what_it_says_in_float(network: str, material: Material) -> None:
    student = new_student(network)
    for norm in (module for module in student.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.momentum = 1.0
    student.train()(torch.cat(_rgb(material)))
    source = of_student(student.eval())
    pictures = _pictures(source, material)[:4]
    wanted = [source.inference_network()(picture) for picture in pictures]

    def distance(tuned: torch.nn.Module) -> float:
        int8 = Int8(tuned, pictures, source.std)
        with torch.no_grad():
            said = [int8.call(tuned, picture) for picture in pictures]
        return float(np.mean([_distance(source.outputs, *pair).item() for pair in zip(said, wanted, strict=True)]))

    assert distance(fine_tune(source, pictures, 20, seed=0)) < distance(source.inference_network())


def test_depth_learns_with_labels_and_equal_seeds_give_equal_weights(material: Material) -> None:
    labels = new_student().config
    depth = Modality("depth", Kind.DEPTH, 1, dtype="float32", unit="m")
    statistics = {**labels.statistics, "depth": {"mean": [20.0], "std": [9.0]}}
    torch.manual_seed(0)
    both = Student(replace(labels, outputs=(*labels.outputs, depth), statistics=statistics)).eval()
    source = of_student(both)
    pictures = _pictures(source, material)[:2]
    one, same, other = (fine_tune(source, pictures, 2, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    head = one["head.weight"][-1], source.inference_network().state_dict()["head.weight"][-1]
    assert not torch.equal(*head), "the channel of depth has learnt, too"


def test_networks_of_others_are_refused(edgekit: Callable[..., Any]) -> None:
    answer = edgekit("build", "--profile", "laptop-cpu", "--model", "segformer-b0", "--fine-tune", "300")
    assert answer.status == 2
    assert "--fine-tune is for students, not for --model." in answer.err
    assert "add mixed to the profile's precisions" in " ".join(answer.err.split())


def _exporter(folder: Path, profile: Profile, steps: int) -> Exporter:
    return Exporter(of_student(load_student(folder)), profile, fine_tuning=FineTuning(steps))


def _rgb(material: Material) -> list[torch.Tensor]:
    return [network_rgb(torch.from_numpy(frame)[None], None) for frame in material.calibration]


def _pictures(source: Deployable, material: Material) -> list[torch.Tensor]:
    return [(rgb - source.mean) / source.std for rgb in _rgb(material)]
