"""What benchmarks have in common: pinned threads, a clip, how results are written."""

from __future__ import annotations

import machine

machine.pin()

import os
from pathlib import Path
from typing import Any

import footage
import pytest
import results
from peer import PeerMissingError, python_of

_LONG_S = 1800
_STOLEN = machine.stolen()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "guard: checks ratios with a wide margin; short enough for every commit")
    config.addinivalue_line("markers", "long: takes minutes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(_LONG_S))
        item.add_marker(pytest.mark.filterwarnings("default"))  # what libraries think of each other is not asked here


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info.clear()
    machine_info.update(machine.describe())


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """The file of this machine is kept up to date: part of the benchmarks may be run again."""
    output_json["machine_info"]["stolen_s"] = round(machine.stolen() - _STOLEN, 1)
    results.slim(output_json)
    if (path := config.getoption("benchmark_json")) == machine.results_file():
        results.keep(output_json, path)


@pytest.fixture(autouse=True)
def state(request: pytest.FixtureRequest) -> None:
    """How busy the machine was when a benchmark began."""
    if "benchmark" in request.fixturenames:
        request.getfixturevalue("benchmark").extra_info["load_1m"] = round(os.getloadavg()[0], 2)


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """540×960; `EDGEKIT_BENCH_VIDEO` names another."""
    return footage.real() or footage.write(tmp_path_factory.mktemp("video") / "flight.mp4", (540, 960), 120)


@pytest.fixture(scope="session")
def vre_python() -> Path:
    """The Python of the environment with the papers' own tool in it."""
    try:
        return python_of("vre")
    except PeerMissingError as error:
        pytest.skip(f"the papers' tool: {error}")
