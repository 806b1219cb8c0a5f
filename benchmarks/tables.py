"""The tables of docs/results.md from a run: `python benchmarks/tables.py RESULTS.json [...]`, in Markdown."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import results

Document = Mapping[str, Any]
# Of what runs in turns: the file of the benchmarks, and what its figures are of.
BESIDE = {
    "test_inference.py": "a frame of 960x544, bytes in, class ids out",
    "test_learned.py": "a frame of 960x540, seen at 384x384",
    "test_training.py": "four steps of 8 crops of 256x256",
    "test_store.py": "reading a sample of five modalities at 960x540, or writing eight",
    "test_start.py": "a whole process",
}


def beside(document: Document, file: str) -> Iterator[str]:
    """Medians and quartiles of every contender, and how many times as fast as it the subject was in the same run."""
    shown: set[tuple[str, str]] = set()
    yield "| what | ms | quartiles | as fast as this |"
    yield "| --- | --- | --- | --- |"
    for found in results.turns(document, file):
        for name, spent in found["ms"].items():
            # One subject beside many is told once.
            key = found["benchmark"], name
            if key in shown:
                continue
            shown.add(key)
            quartiles = f"{spent['q1']:g} to {spent['q3']:g}"
            ratio = found["times_as_fast"].get(name)
            told = f"{found['subject']}: {ratio['median']:.3g} times" if ratio else ""
            yield f"| {name} | {spent['median']:g} | {quartiles} | {told} |"


def papers(document: Document) -> Iterator[str]:
    """Seconds per 100 frames; a column for each size."""
    cells: dict[str, dict[str, float]] = {}
    published: dict[tuple[str, str], float] = {}
    for entry in document["benchmarks"]:
        if "test_table.py" not in entry["fullname"]:
            continue
        what, _, size = entry["fullname"].partition("[")[2].removesuffix("]").rpartition("-")
        found = entry["extra_info"]
        for name, seconds in found.get("seconds_per_100_frames", {}).items():
            title = f"{what}: {name}" if name.startswith("VRE") else name
            cells.setdefault(title, {})[size] = seconds
        if "published" in found:
            published[what, size] = found["published"]
    sizes = sorted({size for row in cells.values() for size in row}, key=lambda size: int(size.partition("x")[0]))
    yield f"| seconds per 100 frames | {' | '.join(sizes)} |"
    yield f"| --- |{' --- |' * len(sizes)}"
    for title, row in cells.items():
        yield f"| {title} | {' | '.join(f'{row[size]:g}' if size in row else '' for size in sizes)} |"
    for (what, size), seconds in published.items():
        yield f"| {what}: published, batch 1 | {' | '.join(f'{seconds:g}' if size == each else '' for each in sizes)} |"


def scaling(document: Document) -> Iterator[str]:
    yield "| what | exponent | points |"
    yield "| --- | --- | --- |"
    for _, name, found in results.growths(document):
        points = ", ".join(f"{float(x):g}: {y:g}" for x, y in found["points"].items())
        yield f"| {name} | {found['exponent']:.2f} | {points} |"


def roofline(found: Mapping[str, Any]) -> Iterator[str]:
    """Of what roofline.py measured."""
    if not found:
        return
    limits = found["limits"]
    peaks = ", ".join(f"{name} {value:,.0f}" for name, value in limits["peak_gops"].items())
    yield f"Peak of large convolutions, Gop/s: {peaks}. Copying: {limits['bandwidth_gbs']:.1f} GB/s."
    yield ""
    yield "| network | precision | Gop | MB by layers | op/byte | ms | Gop/s | of the peak | of the roof |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for p in found["networks"]:
        yield (
            f"| {p['network']} | {p['precision']} | {p['gops']:.3g} | {p['megabytes']:.3g} | {p['intensity']:.3g} "
            f"| {p['ms']:.3g} | {p['gops_per_s']:,.0f} | {p['of_peak']:.0%} | {p['of_roof']:.0%} |"
        )


def others(document: Document) -> Iterator[str]:
    """What stands alone, or says more than times."""
    yield "| benchmark | median, s | what else |"
    yield "| --- | --- | --- |"
    for entry in document["benchmarks"]:
        told = {
            name: value
            for name, value in entry["extra_info"].items()
            if name in ("fps", "mb", "rss_mb", "samples_per_second", "ms_per_frame", "frames", "without")
        }
        if "test_table" not in entry["fullname"]:
            name = entry["fullname"].removeprefix("benchmarks/")
            yield f"| {name} | {entry['stats']['median']:g} | {told or ''} |"


TABLES: Mapping[str, Callable[[Document], Iterator[str]]] = {
    **{f"{file}: {what}": lambda document, file=file: beside(document, file) for file, what in BESIDE.items()},
    "The papers' table": papers,
    "Scaling": scaling,
    "Roofline": lambda document: roofline(results.extra(document, "test_roofline")),
    "All": others,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+")
    document = results.load(parser.parse_args(arguments).results)
    for title, rows in TABLES.items():
        print(f"## {title}\n")
        print("\n".join(rows(document)), end="\n\n")


if __name__ == "__main__":
    main()
