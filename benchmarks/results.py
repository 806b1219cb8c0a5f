"""Result files: what pytest-benchmark writes, cut down to what is read again; several runs in one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import digits

_STATS = ("min", "median", "q1", "q3", "rounds")


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as `other` the subject of a benchmark was: the median and the quartiles of all turns."""

    benchmark: str
    other: str
    median: float
    q1: float
    q3: float

    @property
    def key(self) -> tuple[str, str]:
        return self.benchmark, self.other


def slim(output: dict[str, Any]) -> None:
    """Drops every single timing and what pytest-benchmark was told; notes for each when it was taken, and of what."""
    commit = output["commit_info"]
    output["commit_info"] = {key: commit[key] for key in ("id", "time", "dirty") if key in commit}
    for entry in output["benchmarks"]:
        entry["stats"] = {name: digits(entry["stats"][name]) for name in _STATS}
        entry |= {"taken": output["datetime"], "commit": commit.get("id", "unknown")[:12]}
        for useless in ("options", "group", "name", "param", "params"):
            entry.pop(useless, None)


def keep(output: dict[str, Any], path: Path) -> None:
    """Takes over from an earlier file of this machine what this run did not measure."""
    if path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if earlier["machine_info"]["name"] == output["machine_info"]["name"]:
            output["benchmarks"] = _latest([earlier, output])


def load(paths: Sequence[Path]) -> dict[str, Any]:
    """One document of one or several runs on the same machine; of what is in several, the last counts. Raises
    ValueError where machines differ.
    """
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    machines = {document["machine_info"]["name"] for document in documents}
    if len(machines) > 1:
        raise ValueError(f"results of different machines: {', '.join(sorted(machines))}")
    return {**documents[-1], "benchmarks": _latest(documents)}


def _latest(documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = {entry["fullname"]: entry for document in documents for entry in document["benchmarks"]}
    return [found[name] for name in sorted(found)]


def ratios(document: Mapping[str, Any]) -> Iterator[Ratio]:
    for entry in document["benchmarks"]:
        for other, found in entry["extra_info"].get("times_as_fast", {}).items():
            yield Ratio(entry["fullname"], other, found["median"], found["q1"], found["q3"])


def turns(document: Mapping[str, Any], file: str) -> list[Mapping[str, Any]]:
    """`extra_info` of what was measured in turns in a file of benchmarks, with the function's name as `benchmark`; most
    contenders first.
    """
    entries = [
        {**entry["extra_info"], "benchmark": entry["fullname"].partition("[")[0]}
        for entry in document["benchmarks"]
        if file in entry["fullname"]
    ]
    return sorted((each for each in entries if "ms" in each), key=lambda each: -len(each["ms"]))


def medians(document: Mapping[str, Any], file: str) -> dict[str, float]:
    """Milliseconds by contender; of one that was measured with several others, what it took among the most."""
    found: dict[str, float] = {}
    for extra_info in turns(document, file):
        for name, spent in extra_info["ms"].items():
            found.setdefault(name, spent["median"])
    return found


def growths(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(benchmark, what grows, exponent and points)"""
    for entry in document["benchmarks"]:
        for name, found in entry["extra_info"].get("growth", {}).items():
            yield entry["fullname"], name, found


def extra(document: Mapping[str, Any], benchmark: str) -> dict[str, Any]:
    """`extra_info` of the benchmark whose name ends so; empty where it was not run."""
    found = [entry["extra_info"] for entry in document["benchmarks"] if entry["fullname"].endswith(benchmark)]
    return found[-1] if found else {}
