"""Small things by the names that the pages use: a video, experts, a data set, a bundle, a profile, a key."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
from clips import write_clip

from edgekit.cli import main
from edgekit.locate import DEFAULT_BUNDLE
from edgekit_experts.world import Flight

SIZE = (96, 160)

# Label maps and depth without weights: classes of CamVid by brightness, each map with errors of its own.
_STREET = """
import numpy as np

from edgekit_experts.expert import Expert
from edgekit_experts.taxonomies import CAMVID
from edgekit_runtime.modality import Kind, Modality


class Street(Expert):
    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def produces(self, inputs):
        return Modality("labels", Kind.LABELS, taxonomy=CAMVID)

    def compute(self, batch):
        classes = batch.frames.mean(axis=-1, keepdims=True).astype(np.uint8) // 32
        wrong = np.random.default_rng(self.seed).random(classes.shape[1:]) < 0.2
        return np.where(wrong, self.seed, classes).astype(np.uint8)


class Far(Expert):
    def produces(self, inputs):
        return Modality("depth", Kind.DEPTH, 1, "float16", (0, 100), "m")

    def compute(self, batch):
        return (1 + batch.frames.mean(axis=-1, keepdims=True) / 10).astype(np.float16)
"""

_NETS = "".join(f'[net_{name}]\nexpert = "street.py:Street"\nseed = {seed}\n' for seed, name in enumerate("abc", 1))

_EXPERTS = f"""
[rgb]
expert = "rgb"
[canny]
expert = "canny"
[depth]
expert = "street.py:Far"
{_NETS}
[vote]
expert = "majority_vote"
of = ["net_a", "net_b", "net_c"]
"""

_TRAIN = """
[train]
network = "edge-150k"
[train.augmentation]
crop = "64x64"
[train.optimisation]
steps = 2
batch = 2
precision = "32-true"
[distill]
network = "edge-150k"
[distill.ensemble]
members = 2
[distill.augmentation]
crop = "64x64"
[distill.optimisation]
steps = 2
batch = 2
precision = "32-true"
"""

# What a gate is for is tested elsewhere: nothing that has seen two steps would pass one.
_PROFILE = """
inherits = "generic-cpu"
target = "openvino"
input_size = "160x96"
precisions = ["fp32"]
allowed_drop_points = 100
min_agreement = 0
calibration_frames = 4
judged_frames = 4
"""


def make(folder: Path) -> None:
    """All of them, in `folder`, which must be the working directory: the training is named by relative paths."""
    flight = Flight(3, size=SIZE, frames=None)
    frames = [flight.render(20 * number).rgb for number in range(6)]
    for name, text in {
        "street.py": _STREET,
        "experts.toml": _EXPERTS,
        "nets.toml": _NETS,
        "train.toml": _TRAIN,
        "laptop-cpu.toml": _PROFILE,
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name in ("drone.mp4", "phone.mov"):
        write_clip(folder / name, np.stack(frames))
    shutil.copy("drone.mp4", "clip.mp4")
    said = [f"DIR2/experts/{name}" for name in ("espnetv2_s15", "espnetv2_s20", "dicenet_s175", "depth_pydnet")]
    for place in ("DIR/rgb", "DIR2/rgb", "walk", "DIR2/labels", *said):
        (folder / place).mkdir(parents=True)
        for number, frame in enumerate(frames[:4]):
            classes = (frame.mean(axis=-1) // 32).astype(np.uint8)
            picture = frame[..., ::-1] if place in ("DIR/rgb", "DIR2/rgb", "walk") else classes
            cv2.imwrite(str(folder / place / f"{number}.png"), picture)
    for name in ("model.edgekit", "edge-430k.edgekit", "a.edgekit", "b.edgekit"):
        shutil.copy(DEFAULT_BUNDLE, folder / name)
    for command in (
        "extract drone.mp4 -o data -c experts.toml",
        "import frames DIR2 -o data --split val",
        "derive data -c nets.toml --video DIR2",
        "train data -o runs/phg-mae -c train.toml",
        "distill runs/phg-mae data -o runs/student -c train.toml",
        "build --profile laptop-cpu.toml --student runs/student",
        "export data -o SRC",
        "bundle key -o my.key",
        "bundle sign model.edgekit --key my.key",
    ):
        status = main(command.split())
        assert status == 0, f"{command}: exit status {status}"
