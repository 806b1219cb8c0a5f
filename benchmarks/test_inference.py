"""Students, bytes in, class ids out, at 544×960: every engine and precision in turns, and what people use today.

Goal: edge-430k INT8 in 4 ms; 45 times as fast as the eager SafeUAV-430k of the papers' tool, 4 times as fast as
SafeUAV-430k compiled to INT8.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import machine
import networks
import pytest
from harness import Contender, compared, seconds_of, told
from networks import SIZE, Form
from peer import Peer, PeerMissingError, python_of

DEFAULT = Form("edge-430k")
HERE = [
    DEFAULT,
    Form("edge-430k", label_stride=2),
    Form("edge-430k", precision="bf16"),
    Form("edge-430k", precision="fp32"),
    Form("edge-150k"),
    Form("edge-900k"),
    Form("edge-430k-s2"),
    Form("safeuav-430k"),
    Form("safeuav-430k", precision="bf16"),
    Form("safeuav-430k", precision="fp32"),
]
# Name: environment, script, and what that is given.
PEERS: dict[str, tuple[str, str, Callable[[Path], list[Any]]]] = {
    "safeuav-430k VRE": ("vre", "vre_network.py", lambda folder: [540, 960]),
    **{
        f"{network} torch {how}": (
            "torch",
            "torch_network.py",
            lambda folder, network=network, how=how: [
                networks.write_program(networks.exporter(network), folder / "network.pt2"),
                how,
            ],
        )
        for network in ("edge-430k", "safeuav-430k")
        for how in ("eager", "compiled")
    },
    **{
        f"{network} onnxruntime {precision}": (
            "onnxruntime",
            "onnxruntime_session.py",
            lambda folder, network=network, precision=precision: [
                networks.write_onnx(Form(network, "onnxruntime", precision), folder / "network.onnx")
            ],
        )
        for network in ("edge-430k", "safeuav-430k")
        for precision in ("int8", "fp32")
    },
    **{
        f"{network} opencv fp32": (
            "opencv",
            "opencv_dnn.py",
            lambda folder, network=network: [networks.write_bare_onnx(network, folder / "network.onnx"), *SIZE],
        )
        for network in ("edge-430k", "safeuav-430k")
    },
}


@pytest.fixture(scope="module")
def subject() -> Iterator[Callable[[], Any]]:
    """The default student, compiled to INT8, on one frame."""
    image = networks.noise(SIZE)[None]
    with networks.engines([DEFAULT]) as found:
        yield lambda: found[DEFAULT].infer(image)


def test_forms(benchmark: Any) -> None:
    image = networks.noise(SIZE)[None]
    with networks.engines(HERE) as found:
        contenders = {str(form): lambda engine=engine: engine.infer(image) for form, engine in found.items()}
        compared(benchmark, contenders, rounds=100, warm_up=10)


@pytest.mark.parametrize("name", PEERS)
def test_beside(benchmark: Any, subject: Callable[[], Any], name: str, tmp_path: Path) -> None:
    environment, script, given = PEERS[name]
    try:
        with Peer(environment, script, *given(tmp_path)) as peer:
            contenders: dict[str, Contender] = {str(DEFAULT): subject, name: peer}
            compared(benchmark, contenders, rounds=60, warm_up=10)
            benchmark.extra_info["about"] = peer.about
    except PeerMissingError as error:
        pytest.skip(str(error))


def test_beside_benchmark_app(benchmark: Any, subject: Callable[[], Any], tmp_path: Path) -> None:
    """OpenVINO's own measure of the same file, the limit of what a runtime can do; goal: within 3 %."""
    try:
        app = python_of("openvino").with_name("benchmark_app")
    except PeerMissingError as error:
        pytest.skip(str(error))
    model = networks.write_openvino(DEFAULT, tmp_path)
    told_of_it = [app, "-m", model, "-hint", "none", "-api", "sync", "-nstreams", "1", "-t", "4"]
    command = [*map(str, told_of_it), "-nthreads", str(machine.cores()), "-infer_precision", "bf16"]
    spent: dict[str, list[float]] = {str(DEFAULT): [], "benchmark_app": []}

    def app_first() -> None:
        said = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
        found = re.search(r"Median:\s+([\d.]+) ms", said)
        assert found, said
        spent["benchmark_app"].append(float(found.group(1)) / 1e3)

    def ours() -> None:
        spent[str(DEFAULT)].append(median(seconds_of(subject) for _ in range(800)))

    benchmark.pedantic(ours, setup=app_first, rounds=5)
    benchmark.extra_info |= told(spent)
