"""The engine ray: the same bytes as on one machine, whatever becomes of the machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from clips import files_of, numbered_frames, write_clip

from edgekit_experts.config import load_config, parse_config
from edgekit_experts.dataset import Dataset
from edgekit_experts.pipeline import ExtractOptions, extract
from edgekit_experts.video import open_video
from edgekit_runtime.errors import ExpertError, UsageError

SLOW = """
import os, time
from edgekit_experts.expert import Expert
from edgekit_runtime.modality import Kind, Modality

class Slow(Expert):
    '''Fails on one frame, and notes on which machine of a cluster it ran.'''
    def produces(self, inputs):
        return Modality("slow", Kind.IMAGE, 3)
    def compute(self, batch):
        if "SEEN" in os.environ:
            import ray
            with open(os.environ["SEEN"], "a") as file:
                print(ray.get_runtime_context().get_node_id(), batch.first, file=file)
            time.sleep(0.1)
        if batch.first <= 99 < batch.first + len(batch.frames):
            raise ValueError("dark")
        return 255 - batch.frames
"""

# Two machines of one core each; one dies when the first range is done, in the middle of its own.
ONE_DIES = """
import logging, os, sys
from pathlib import Path
from ray.cluster_utils import Cluster
import ray
from edgekit_experts.config import load_config
from edgekit_experts.pipeline import ExtractOptions, extract
from edgekit_experts.video import open_video

memory = {"object_store_memory": 100 << 20}
quick = {"health_check_period_ms": 300, "health_check_failure_threshold": 3, "health_check_initial_delay_ms": 0}
head = {"num_cpus": 1, "include_dashboard": False, "_system_config": quick, **memory}
cluster = Cluster(initialize_head=True, head_node_args=head)
second = cluster.add_node(num_cpus=1, **memory)
ray.init(address=cluster.address, log_to_driver=False)
dead = []

def kill(progress):
    machines = {line.split()[0] for line in Path(os.environ["SEEN"]).read_text(encoding="utf-8").splitlines()}
    if len(machines) == 2 and not dead:
        dead.append(second)
        cluster.remove_node(second, allow_graceful=False)

extract(
    [open_video(uri) for uri in sys.argv[3:]],
    Path(sys.argv[1]),
    load_config(Path(sys.argv[2])),
    ExtractOptions(engine="ray"),
    kill,
)
assert dead, "the second machine did not take part"
ray.shutdown()
cluster.shutdown()
"""


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [
        write_clip(tmp_path / f"{name}.mp4", numbered_frames(count, (48, 64)))
        for name, count in (("long", 900), ("short", 40))
    ]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    path = tmp_path / "experts.toml"
    path.write_text(
        f"""
        [rgb]
        expert = "rgb"
        [dis_flow]
        expert = "dis_flow"
        [slow]
        expert = "{tmp_path / "slow.py"}:Slow"
        """,
        encoding="utf-8",
    )
    return path


def test_a_cluster_that_loses_a_machine_loses_no_frame(clips: list[Path], config: Path, tmp_path: Path) -> None:
    out, seen = tmp_path / "ray", tmp_path / "seen"
    run = subprocess.run(
        [sys.executable, "-c", ONE_DIES, str(out), str(config), *map(str, clips)],
        env={**os.environ, "SEEN": str(seen), "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        encoding="utf-8",
        timeout=200,
    )
    assert run.returncode == 0, run.stderr
    extract([open_video(str(clip)) for clip in clips], tmp_path / "local", load_config(config))
    assert files_of(out) == files_of(tmp_path / "local")
    failed = Dataset.open(out).video("long").failed("slow")
    assert list(failed) == [99]
    assert failed[99].startswith("ValueError: dark (slow.py, line ")


def test_the_command_starts_a_cluster_of_its_own_where_there_is_none(
    clips: list[Path], config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ray"
    command = [sys.executable, "-m", "edgekit", "extract", *map(str, clips), "-o", str(out), "-c", str(config)]
    run = subprocess.run([*command, "--engine", "ray", "--json"], capture_output=True, encoding="utf-8", timeout=200)
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert (document["frames"], document["failed"]) == (940, 1)
    extract([open_video(str(clip)) for clip in clips], tmp_path / "local", load_config(config))
    assert files_of(out) == files_of(tmp_path / "local")


def test_without_ray_there_is_a_hint(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    config = parse_config('[rgb]\nexpert = "rgb"', "test")
    with pytest.raises(ExpertError) as caught:
        extract([open_video(str(clip))], tmp_path / "data", config, ExtractOptions(engine="ray"))
    assert "edgekit[cluster]" in str(caught.value.hint)


def test_gpus_are_for_clusters() -> None:
    with pytest.raises(UsageError, match="cluster"):
        ExtractOptions(gpus=1)
