"""Trainings on several devices: two real processes on one CPU that average their gradients with gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from edgekit_student.checkpoint import read_weights
from edgekit_student.fit import STATE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process there")

# Little that each of them starts is worth two cores.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SETTINGS = """
[train]
network = "edge-150k"
augmentation.crop = "96x64"
[train.optimisation]
batch = 2
ema = 0.9
precision = "32-true"
"""

# A linear model through fit(), as process RANK of WORLD_SIZE; prints what it ends with.
LINEAR = """
import json, sys, warnings
from pathlib import Path
import torch
warnings.simplefilter("ignore")
from edgekit_student.fit import fit
from edgekit_student.settings import Optimisation

steps, batch, accumulate, run = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
data = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))
torch.manual_seed(0)
line = torch.nn.Linear(5, 1)

def batches(number):
    return {"x": data[[i % 64 for i in range(number * batch, (number + 1) * batch)]]}

settings = Optimisation(steps=steps, batch=batch, accumulate=accumulate, precision="32-true")
def loss(module, sample, number):
    return (module(sample["x"]) - 3).square().mean()

fit(line, batches, loss, settings, run, device="cpu")
print(json.dumps({"weight": line.weight.tolist(), "gradient": line.weight.grad.tolist()}))
"""


def linear(world: int, *arguments: object) -> list[dict[str, object]]:
    """What each of `world` processes ends with."""
    port = str(20_000 + os.getpid() % 20_000)
    started = []
    for rank in range(world):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", LINEAR, *map(str, arguments)],
                env={**ENVIRONMENT, **{name: str(value) for name, value in own.items()}},
                stdout=subprocess.PIPE,
            )
        )
    said = [process.communicate(timeout=200)[0] for process in started]
    assert [process.returncode for process in started] == [0] * world
    return [json.loads(text) for text in said]


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    for steps in (1, 7):
        first, second = linear(2, steps, 4, 1, tmp_path / "two")
        assert first == second, "both end alike"
        (alone,) = linear(1, steps, 8, 1, tmp_path / "one")
        for name in ("gradient", "weight"):
            torch.testing.assert_close(torch.tensor(first[name]), torch.tensor(alone[name]))


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edgekit", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=250)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "train.toml"
    path.write_text(SETTINGS, encoding="utf-8")
    return path


def test_the_command_trains_on_two_devices_and_speaks_once(scene: Path, settings: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run("train", scene, "-o", out, "-c", settings, "--steps", 3, "--device", "cpu", "--devices", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == str(out)
    assert done.stderr.count("PHG-MAE: 3 in") == 1
    assert read_weights(out)
    again = run("train", scene, "-o", out, "-c", settings, "--device", "cpu", "--devices", 2)
    assert again.returncode == 2
    assert again.stderr.count("holds a finished training") == 1


def interrupted(arguments: Sequence[object], state: Path) -> str:
    """Sends SIGINT once the training has written a state; what it said."""
    with subprocess.Popen(command(*arguments), env=ENVIRONMENT, stderr=subprocess.PIPE, encoding="utf-8") as child:
        until = time.monotonic() + 200
        while not state.exists() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        said = child.communicate(timeout=100)[1]
    assert child.returncode == 130, said
    return said


@pytest.mark.parametrize("devices", [1, 2])
def test_ctrl_c_stops_every_process_and_the_rest_ends_alike(
    scene: Path, settings: Path, tmp_path: Path, devices: int
) -> None:
    with settings.open("a", encoding="utf-8") as file:
        file.write("steps = 8\ncheckpoint_every = 3\n")
    options = ["-c", settings, "--device", "cpu", "--devices", devices]
    parts = tmp_path / "parts"
    said = interrupted(["train", scene, "-o", parts, *options], parts / STATE)
    assert said.count("Interrupted") == 1
    assert "Traceback" not in said
    assert [path.name for path in parts.iterdir()] == [STATE], "resumable, and nothing half-written"
    assert run("train", scene, "-o", parts, *options, "--resume").returncode == 0
    assert run("train", scene, "-o", tmp_path / "whole", *options).returncode == 0
    whole, resumed = read_weights(tmp_path / "whole"), read_weights(parts)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.launch import check_devices
    from edgekit_runtime.errors import UsageError

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # no GPU can be counted on here
    with pytest.raises(UsageError, match="2 CUDA devices are asked for, 1 is here"):
        check_devices("cuda", 2)
    check_devices("cpu", 2)
