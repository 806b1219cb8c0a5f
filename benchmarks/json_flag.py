"""Lets `--benchmark-json` of pytest-benchmark stand alone: it then writes `benchmarks/results/<machine>.json`.

pytest reads its options before any conftest, so this is a plug-in of its own, named in pyproject.toml.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest


class _Optional:
    """Changes the option as soon as pytest-benchmark has added it."""

    def __init__(self, parser: pytest.Parser) -> None:
        self._parser = parser

    def pytest_plugin_registered(self, plugin_name: str) -> None:
        if plugin_name != "benchmark":
            return
        import machine

        option = self._parser.optparser._option_string_actions["--benchmark-json"]
        option.nargs, option.const, option.type = "?", machine.results_file(), _file
        option.help = "Write the results into PATH, or without one into benchmarks/results/<machine>.json."


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.register(_Optional(parser))


def pytest_configure(config: pytest.Config) -> None:
    if path := config.getoption("benchmark_json", None):
        path.parent.mkdir(parents=True, exist_ok=True)


def _file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or path.suffix == ".py" or "::" in text:
        raise argparse.ArgumentTypeError(f"{text} is no file to write: put it before the flag")
    return path
