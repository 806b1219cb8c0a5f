"""How cost grows: with frames, the length of a video, resolution, workers, modalities. `growth` has the exponents.

An exponent of 1 is proportional, 0 is not at all. What starts once (processes, networks) is outside of all points.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import footage
import machine
import networks
import pytest
from harness import Contender, Turns, compared, growth
from networks import Form

from edgekit_experts.config import Config, parse_config
from edgekit_experts.dataset import Dataset
from edgekit_experts.pipeline import ExtractOptions, extract
from edgekit_experts.video import open_video
from edgekit_student.settings import Augmentation, Optimisation, TrainSettings
from edgekit_student.train import train

pytestmark = pytest.mark.long

RESOLUTIONS = {240: (240, 432), 360: (368, 640), 480: (480, 864), 540: (544, 960), 720: (720, 1280), 1080: (1088, 1920)}
EXPERTS = parse_config('[rgb]\nexpert="rgb"\n[hsv]\nexpert="hsv"\n[edges]\nexpert="canny"\n', "three cheap experts")
ROUNDS = 3


def extracting(video: Path, out: Path, config: Config = EXPERTS, workers: int = 0) -> Callable[[], None]:
    """A whole run into a new data set."""

    def run() -> None:
        shutil.rmtree(out, ignore_errors=True)
        extract([open_video(str(video))], out, config, ExtractOptions(workers=workers))

    return run


def grown(benchmark: Any, what: str, contenders: dict[int, Contender], rounds: int = ROUNDS) -> None:
    """Seconds of each point in turns, and their exponent, into `extra_info`."""
    turns = Turns({str(x): contender for x, contender in contenders.items()}, warm_up=1)

    def once() -> None:
        for name in turns.contenders:
            turns.take(name)

    benchmark.pedantic(once, rounds=rounds)
    medians = {x: sorted(turns.spent[str(x)])[rounds // 2] for x in contenders}
    benchmark.extra_info.setdefault("growth", {})[what] = growth(medians)


def test_frames(benchmark: Any, tmp_path: Path) -> None:
    """Extraction of the same clip, longer and longer; goal: 1."""
    size = (360, 640)
    videos = {count: footage.write(tmp_path / f"{count}.mp4", size, count) for count in (100, 200, 400, 800)}
    grown(benchmark, "seconds of extract by frames", {n: extracting(v, tmp_path / "data") for n, v in videos.items()})


MEMORY = """
import re, sys
from pathlib import Path
from edgekit_experts.config import shipped_config
from edgekit_experts.pipeline import extract
from edgekit_experts.video import open_video
extract([open_video(sys.argv[1])], Path(sys.argv[2]), shipped_config("default"))
# What getrusage says of a process begins with what its parent had.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024)
"""


def test_memory(benchmark: Any, tmp_path: Path) -> None:
    """Resident at most, by the length of a video of 540×960, default experts; goal: 1.5 GB and 0."""
    videos = {count: footage.write(tmp_path / f"{count}.mp4", (540, 960), count) for count in (200, 400, 800)}
    peaks: dict[int, float] = {}

    def run() -> None:
        for count, video in videos.items():
            command = [sys.executable, "-c", MEMORY, str(video), str(tmp_path / f"data-{count}")]
            said = subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout
            peaks[count] = float(said.split()[-1])

    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info["growth"] = {"resident MB of extract by frames": growth(peaks)}


def test_resolution_of_students(benchmark: Any) -> None:
    """Inference by pixels; goal: at most 1."""
    for precision in ("int8", "fp32"):
        forms = {h * w: Form("edge-430k", precision=precision, size=(h, w)) for h, w in RESOLUTIONS.values()}
        with networks.engines(list(forms.values())) as found:
            contenders: dict[int, Contender] = {}
            for pixels, form in forms.items():
                image = networks.noise(form.size)[None]
                contenders[pixels] = lambda engine=found[form], image=image: engine.infer(image)
            if precision == "int8":
                grown(benchmark, "seconds of edge-430k int8 by pixels", contenders, rounds=31)
                continue
            turns = Turns({str(x): contender for x, contender in contenders.items()})
            for _ in range(11):
                for name in turns.contenders:
                    turns.take(name)
            medians = {x: sorted(turns.spent[str(x)])[5] for x in contenders}
            benchmark.extra_info["growth"]["seconds of edge-430k fp32 by pixels"] = growth(medians)


def test_resolution_of_extraction(benchmark: Any, tmp_path: Path) -> None:
    """Extraction by pixels, 60 frames each; goal: at most 1."""
    videos = {h * w: footage.write(tmp_path / f"{h}.mp4", (h, w), 60) for h, w in RESOLUTIONS.values()}
    runs: dict[int, Contender] = {pixels: extracting(video, tmp_path / "data") for pixels, video in videos.items()}
    grown(benchmark, "seconds of extract by pixels", runs)


def test_workers(benchmark: Any, video: Path, tmp_path: Path) -> None:
    """Extraction by one worker beside as many as there are cores."""
    config = parse_config(
        '[rgb]\nexpert="rgb"\n[hsv]\nexpert="hsv"\n[flow]\nexpert="dis_flow"\n[s]\nexpert="soft_segmentation"\n', "four"
    )
    short = footage.write(tmp_path / "short.mp4", (540, 960), 160)
    both = {f"{n} workers": extracting(short, tmp_path / f"data-{n}", config, n) for n in (machine.cores(), 1)}
    compared(benchmark, both, rounds=ROUNDS, warm_up=1)


def fifteen(count: int) -> Config:
    """So many modalities that cost about the same."""
    return {f"edges_{n}": {"expert": "canny", "low": 40.0 + n, "sigma": 1.0 + n / 10} for n in range(count)}


def test_modalities_of_extraction(benchmark: Any, tmp_path: Path) -> None:
    """Extraction by the number of modalities, 100 frames of 540×960; goal: at most 1, as frames are decoded once."""
    video = footage.write(tmp_path / "clip.mp4", (540, 960), 100)
    runs: dict[int, Contender] = {n: extracting(video, tmp_path / "data", fifteen(n)) for n in (1, 2, 4, 8, 15)}
    grown(benchmark, "seconds of extract by modalities", runs)


def test_modalities_of_training(benchmark: Any, tmp_path: Path) -> None:
    """A step of PHG-MAE (edge-430k, 4 crops of 256×256) by its modalities, all of which it sees and predicts."""
    config = {**fifteen(14), "labels": {"expert": "given", "of": "labels"}}
    extract([open_video("world:7?frames=12&size=480x272")], tmp_path / "data", config)
    data = Dataset.open(tmp_path / "data")
    names = list(fifteen(14))
    steps = 6

    def training(count: int) -> Callable[[], float]:
        settings = TrainSettings(
            network="edge-430k",
            inputs=tuple(names[: max(1, count - 1)]),
            target="labels",
            augmentation=Augmentation(crop=(256, 256)),
            optimisation=Optimisation(steps=steps, batch=4, checkpoint_every=10**6),
        )

        def seconds() -> float:
            """Of the steps after the first two."""
            times: list[float] = []
            run = tmp_path / "run"
            shutil.rmtree(run, ignore_errors=True)
            train(data, run, settings, on_progress=lambda progress: times.append(time.perf_counter()))
            return (times[-1] - times[1]) / (len(times) - 2)

        return seconds

    points = {count: training(count) for count in (2, 4, 8, 15)}
    spent: dict[int, list[float]] = {count: [] for count in points}

    def once() -> None:
        for count, seconds in points.items():
            spent[count].append(seconds())

    benchmark.pedantic(once, rounds=ROUNDS)
    medians = {count: sorted(values)[ROUNDS // 2] for count, values in spent.items()}
    benchmark.extra_info["growth"] = {"seconds of a training step by modalities": growth(medians)}
