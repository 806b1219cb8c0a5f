"""The networks that are measured, weights random: latency does not depend on them.

Students as `edgekit build` compiles them, opened by the runtime's own engines; DPT and Mask2Former of the published
architecture, saved as transformers saves them.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit.bundle import file_entries, write_folder
from edgekit.candidates import Candidate, make_candidate, make_form, opened
from edgekit.deployable import of_student
from edgekit.export import Exporter
from edgekit.material import Material
from edgekit.profiles import load_profile
from edgekit.targets import EngineName, Precision, Target
from edgekit_experts.taxonomies import DRONESCAPES, TAXONOMIES
from edgekit_runtime.engines import Engine, switch_off
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.checkpoint import CheckpointConfig
from edgekit_student.student import Student

Size = tuple[int, int]
SIZE: Size = (544, 960)


@dataclass(frozen=True)
class Form:
    """A student, the engine and precision that it is compiled for, and at which part of its size its answers come."""

    network: str
    engine: EngineName = "openvino"
    precision: Precision = "int8"
    label_stride: int = 4
    size: Size = SIZE

    def __str__(self) -> str:
        stride = "" if self.label_stride == 4 else f" stride {self.label_stride}"
        size = "" if self.size == SIZE else f" {self.size[1]}x{self.size[0]}"
        return f"{self.network} {self.engine} {self.precision}{stride}{size}"


def student(network: str, size: Size = SIZE) -> Student:
    """In training mode, with the eight classes of Dronescapes."""
    torch.manual_seed(0)
    config = CheckpointConfig(
        kind="student",
        network={"name": network},
        inputs=(Modality("rgb", Kind.IMAGE, 3),),
        outputs=(Modality("labels", Kind.LABELS, taxonomy=DRONESCAPES),),
        statistics={"rgb": {"mean": [110.0, 115.0, 100.0], "std": [50.0, 52.0, 55.0]}},
        input_size=size,
    )
    return Student(config)


@cache
def exporter(network: str, size: Size = SIZE, label_stride: int = 4) -> Exporter:
    """Of a student, for a laptop's CPU and frames of this size."""
    switch_off()
    told = {"label_stride": label_stride, "input_size": size}
    return Exporter(of_student(student(network, size).eval()), load_profile("laptop-cpu").model_copy(update=told))


@cache
def candidate(form: Form) -> Candidate:
    """The compiled form, INT8 calibrated on noise: nothing is judged."""
    given = exporter(form.network, form.size, form.label_stride)
    frames = tuple(noise(form.size, seed) for seed in range(4))
    made = make_form(given, form.engine, form.precision, Material(frames, (), "noise", {}))
    return make_candidate(made, Target(form.engine), form.precision, given.profile)


@contextmanager
def engines(forms: Sequence[Form]) -> Iterator[dict[Form, Engine]]:
    """Each opened as the runtime opens it; a form that is refused fails."""
    with ExitStack() as stack:
        found = {}
        for form in forms:
            one = candidate(form)
            given = exporter(form.network, form.size, form.label_stride)
            engine, refused = stack.enter_context(opened(given, [one]))
            assert not refused, refused
            found[form] = engine[one.key]
        yield found


def bundle(form: Form, folder: Path) -> Path:
    """Written as a folder, without a gate: its weights are noise."""
    given, one = exporter(form.network, form.size, form.label_stride), candidate(form)
    manifest = Manifest(
        name=form.network,
        profile=given.profile.name,
        created="now",
        input=given.input,
        outputs=given.outputs,
        variants=(one.variant,),
        files=file_entries(one.files),
    )
    write_folder(folder, manifest, one.files)
    return folder


def noise(size: Size, seed: int = 0) -> np.ndarray:
    """uint8 (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def write_program(given: Exporter, path: Path) -> Path:
    """The deploy graph as PyTorch's own file, for peers that run PyTorch."""
    example = (torch.zeros(1, *given.input_size, 3, dtype=torch.uint8),)
    with torch.no_grad():
        torch.export.save(torch.export.export(given.graph, example), path)
    return path


def write_onnx(form: Form, path: Path) -> Path:
    """What `make_form` makes for ONNX Runtime."""
    path.write_bytes(candidate(form).files[candidate(form).variant.model])
    return path


def write_bare_onnx(network: str, path: Path, size: Size = SIZE) -> Path:
    """The network alone, float32 RGB in, logits out: for engines that know little else."""
    given = exporter(network, size).source.inference_network().eval()
    # The exporter reports every optional package that is not there.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(1, 3, *size),)
        program = torch.onnx.export(given, example, dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    program.save(str(path))
    return path


def write_openvino(form: Form, folder: Path) -> Path:
    """The two files of an OpenVINO form; returns the one to read."""
    one = candidate(form)
    for name, data in one.files.items():
        (folder / Path(name).name).write_bytes(data)
    return folder / Path(one.variant.model).name


def dpt(folder: Path) -> Path:
    """DPT-large (`Intel/dpt-large`: ViT-L/16 at 384x384, 343 million parameters)."""
    import transformers

    torch.manual_seed(0)
    config = transformers.DPTConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        image_size=384,
        backbone_out_indices=[5, 11, 17, 23],
        neck_hidden_sizes=[256, 512, 1024, 1024],
        is_hybrid=False,
    )
    size = {"height": 384, "width": 384}
    model = transformers.DPTForDepthEstimation(config)
    return _saved(model, folder, "DPTImageProcessor", size=size, resample=3, mean=0.5, std=0.5)


def mask2former(folder: Path) -> Path:
    """Mask2Former with Swin-L and the 65 classes of Mapillary Vistas, at 384x384: 216 million parameters."""
    import transformers

    torch.manual_seed(0)
    classes = TAXONOMIES["mapillary"].classes
    backbone = transformers.SwinConfig(
        image_size=384,
        embed_dim=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        window_size=12,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone,
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    )
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    size = {"height": 384, "width": 384}
    return _saved(model, folder, "Mask2FormerImageProcessor", size=size, resample=2, mean=0.45, std=0.225)


def _saved(
    model: Any, folder: Path, processor: str, *, size: dict[str, int], resample: int, mean: float, std: float
) -> Path:
    model.eval().save_pretrained(folder)
    table = {
        "image_processor_type": processor,
        "do_resize": True,
        "size": size,
        "resample": resample,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [mean] * 3,
        "image_std": [std] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(table), encoding="utf-8")
    return folder
