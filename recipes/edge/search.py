"""Which student is fast and good? `python recipes/edge/search.py [--data DATA] [--steps N] [--frames FILE]`.

Latency is that of the compiled INT8 graph, uint8 camera frame in, uint8 class map out, at 544x960, on this machine:
all candidates are open at once and take turns in blocks, so that what else the machine does hits all alike. Weights
are random for it, latency does not depend on them. With `--data`, each candidate is also taught by `expert:vote` for
`--steps` steps, all with the same settings, and scored on the split `val`. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekit.candidates import make_candidate, make_form, opened
from edgekit.deployable import of_student
from edgekit.export import Exporter
from edgekit.material import Material
from edgekit.profiles import load_profile
from edgekit.targets import Target
from edgekit.timing import time_engines
from edgekit_experts.dataset import Dataset
from edgekit_experts.taxonomies import CAMVID
from edgekit_runtime.engines import switch_off
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.checkpoint import CheckpointConfig
from edgekit_student.networks import NETWORKS, deployed
from edgekit_student.networks.edge import Edge, EdgeShape
from edgekit_student.student import Student

SIZE = (544, 960)
# What is varied: the published shapes, the resolution of the answers, where the layers and the channels are.
VARIANTS = {
    "wide at 1/4": EdgeShape((24, 48, 48, 64, 64), (2, 3, 1)),
    "narrow at 1/4": EdgeShape((12, 24, 48, 64, 72), (2, 3, 2)),
    "deep at 1/8": EdgeShape((16, 32, 48, 64, 64), (5, 2, 1)),
    "deep at 1/16": EdgeShape((16, 32, 40, 64, 64), (1, 6, 1)),
    "deep at 1/32": EdgeShape((16, 32, 40, 56, 64), (1, 2, 7)),
}
PUBLISHED = ("edge-150k", "edge-430k", "edge-900k", "edge-430k-s2", "safeuav-150k", "safeuav-430k")


@dataclass
class Row:
    """One candidate: multiply-accumulates of the network alone, latency in ms, mIoU 0..1 if it was trained."""

    name: str
    parameters: int
    gmacs: float
    p50_ms: float
    miou: float | None = None


def student(name: str) -> Student:
    torch.manual_seed(0)
    config = CheckpointConfig(
        kind="student",
        network={"name": name},
        inputs=(Modality("rgb", Kind.IMAGE, 3),),
        outputs=(Modality("labels", Kind.LABELS, taxonomy=CAMVID),),
        statistics={"rgb": {"mean": [110.0, 115.0, 100.0], "std": [50.0, 52.0, 55.0]}},
        input_size=SIZE,
    )
    return Student(config).eval()


def multiply_accumulates(network: nn.Module) -> int:
    """Of the convolutions of one frame at `SIZE`, in the deployed form."""
    total = 0

    def count(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        # A transposed convolution uses each weight once for each pixel that goes in.
        pixels = inputs[0][0, 0].numel() if isinstance(module, nn.ConvTranspose2d) else output[0, 0].numel()  # type: ignore[index]
        total += module.weight.numel() * pixels

    network = deployed(copy.deepcopy(network))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, *SIZE))
    return total


def latencies(names: list[str]) -> dict[str, float]:
    """Median milliseconds of the INT8 graph by network."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (*SIZE, 3), np.uint8) for _ in range(4)]
    profile = load_profile("laptop-cpu")
    with ExitStack() as stack:
        engines = {}
        for name in names:
            exporter = Exporter(of_student(student(name)), profile)
            form = make_form(exporter, "openvino", "int8", Material(tuple(frames), (), "noise", {}))
            candidate = make_candidate(form, Target("openvino"), "int8", profile)
            found, refused = stack.enter_context(opened(exporter, [candidate]))
            assert not refused, refused
            engines[name] = found[candidate.key]
        rounds = [time_engines(engines, frames, lambda: None) for _ in range(3)]
    return {name: float(np.median(np.concatenate([times[name].ms for times in rounds]))) for name in names}


def taught(name: str, data: Path, steps: int) -> float:
    """mIoU on `val` after `steps` steps with the stored vote as the teacher."""
    from edgekit.cli import main

    with tempfile.TemporaryDirectory() as folder:
        arguments = ["distill", "expert:vote", str(data), "-o", f"{folder}/student", "--student", name]
        settings = Path(__file__).with_name("search.toml")
        assert main([*arguments, "-c", str(settings), "--steps", str(steps)]) == 0
        from edgekit.commands.scores import score_model

        return score_model(f"{folder}/student", Dataset.open(str(data)), "val").miou


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a data set with `vote` to learn from and `labels` in `val`")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--only", nargs="*", help="names of candidates")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    options = parser.parse_args()
    switch_off()
    NETWORKS.update({name: partial(Edge, shape=shape) for name, shape in VARIANTS.items()})
    names = options.only or [*PUBLISHED, *VARIANTS]
    times = latencies(names)
    rows = []
    for name in names:
        network = student(name).network
        count = sum(parameter.numel() for parameter in deployed(copy.deepcopy(network)).parameters())
        miou = taught(name, options.data, options.steps) if options.data else None
        rows.append(Row(name, count, multiply_accumulates(network) / 1e9, times[name], miou))
        if options.json:
            options.json.write_text(json.dumps([vars(row) for row in rows], indent=1), encoding="utf-8")
    print("| network | parameters | GMAC at 544x960 | INT8, ms | mIoU % |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        score = "" if row.miou is None else f"{100 * row.miou:.1f}"
        print(f"| {row.name} | {row.parameters:,} | {row.gmacs:.2f} | {row.p50_ms:.2f} | {score} |")


if __name__ == "__main__":
    main()
