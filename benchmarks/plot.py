"""Pictures of a run: `python benchmarks/plot.py RESULTS.json [...] -o docs/pictures`. Needs `edgekit[bench]`.

inference.png   students beside what people use today, milliseconds a frame
roofline.png    networks below this machine's limits
table.png       the papers' table, redone
scaling.png     how cost grows, with exponents
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import results
from matplotlib.figure import Figure

OURS, OTHERS, MUTED = "#0b6e4f", "#8d99ae", "#444444"
_STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10}
Document = Mapping[str, Any]


def inference(document: Document) -> Figure | None:
    """One bar for each contender, on a logarithmic scale; ours once, although it took turns with each."""
    spent: dict[str, float] = {}
    for entry in document["benchmarks"]:
        if "test_inference.py" in entry["fullname"]:
            for name, found in entry["extra_info"].get("ms", {}).items():
                spent.setdefault(name, found["median"])
    if not spent:
        return None
    names = sorted(spent, key=lambda name: -spent[name])
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.24 * len(names)))
    ours = [name.split()[1] == "openvino" for name in names]
    bars = axes.barh(names, [spent[name] for name in names], color=[OURS if own else OTHERS for own in ours])
    axes.bar_label(bars, [f" {spent[name]:.3g}" for name in names], color=MUTED, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds a frame of 960x544, bytes in, class ids out (logarithmic)")
    axes.set_title(f"Green: as edgekit builds it. {_machine(document)}", loc="left")
    return figure


def roofline(document: Document) -> Figure | None:
    found = results.extra(document, "test_roofline")
    if not found:
        return None
    limits = found["limits"]
    figure, axes = plt.subplots(figsize=(7, 4.2))
    colours = dict(zip(("int8", "bf16", "fp32"), (OURS, "#d17a22", "#5b5f97"), strict=True))
    intensities = [place["intensity"] for place in found["networks"]]
    low, high = min(intensities) / 2, max(intensities) * 3
    for precision, colour in colours.items():
        peak, slope = limits["peak_gops"][precision], limits["bandwidth_gbs"]
        axes.plot([low, peak / slope, high], [low * slope, peak, peak], color=colour, linewidth=1)
        axes.text(high, peak, f" {precision} {peak:,.0f}", color=colour, va="center")
        here = [place for place in found["networks"] if place["precision"] == precision]
        axes.scatter([p["intensity"] for p in here], [p["gops_per_s"] for p in here], color=colour, s=16, zorder=3)
        for p in here:
            axes.annotate(
                p["network"], (p["intensity"], p["gops_per_s"]), (4, -3), textcoords="offset points", fontsize=7
            )
    axes.set(xscale="log", yscale="log", xlabel="operations a byte, if every layer went through memory")
    axes.set_ylabel("Gop/s")
    axes.set_title(f"Lines: large convolutions, and copying at {limits['bandwidth_gbs']:.0f} GB/s", loc="left")
    return figure


def table(document: Document) -> Figure | None:
    """A panel for each row of the table, a group of bars for each size."""
    cells: dict[str, dict[str, Mapping[str, float]]] = {}
    for entry in document["benchmarks"]:
        if "test_table.py" in entry["fullname"]:
            size, _, what = entry["fullname"].partition("[")[2].removesuffix("]").partition("-")
            cells.setdefault(what, {})[size] = entry["extra_info"]["seconds_per_100_frames"]
    if not cells:
        return None
    figure, panels = plt.subplots(1, len(cells), figsize=(3.3 * len(cells), 3.4), squeeze=False)
    for axes, (what, sizes) in zip(panels[0], cells.items(), strict=True):
        ordered = sorted(sizes, key=lambda size: int(size.partition("x")[0]))
        names = list(dict.fromkeys(name for size in ordered for name in sizes[size]))
        for number, name in enumerate(names):
            values = [sizes[size].get(name, float("nan")) for size in ordered]
            places = [index + (number - len(names) / 2 + 0.5) * 0.8 / len(names) for index in range(len(ordered))]
            colour = OTHERS if name.startswith("VRE") else OURS
            axes.bar(places, values, 0.75 / len(names), color=colour, alpha=1 - 0.22 * (number % 3), label=name)
        axes.set_xticks(range(len(ordered)), ordered, fontsize=7)
        axes.set_yscale("log")
        axes.set_title(f"RGB + {what}", loc="left")
        axes.legend(fontsize=6, frameon=False)
    panels[0][0].set_ylabel("seconds per 100 frames, stored")
    return figure


def scaling(document: Document) -> Figure | None:
    found = list(results.growths(document))
    if not found:
        return None
    columns = 3
    rows = -(-len(found) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(8, 2.2 * rows), squeeze=False)
    for axes, (_, name, growth) in zip(panels.flat, found, strict=False):
        x, y = [float(key) for key in growth["points"]], list(growth["points"].values())
        axes.plot(x, y, "o-", color=OURS, markersize=3, linewidth=1)
        axes.set(xscale="log", yscale="log")
        axes.set_ylim(min(y) / 2, max(y) * 2)
        axes.set_title(f"{name.replace(' by ', chr(10) + 'by ')}: x^{growth['exponent']:.2f}", loc="left", fontsize=8)
        axes.tick_params(labelsize=6, which="both")
    for axes in panels.flat[len(found) :]:
        axes.axis("off")
    return figure


PICTURES: Mapping[str, Callable[[Document], Figure | None]] = {
    "inference": inference,
    "roofline": roofline,
    "table": table,
    "scaling": scaling,
}


def _machine(document: Document) -> str:
    told = document["machine_info"]
    return f"{told['cpu']}, {told['cores']} cores"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the pictures")
    options = parser.parse_args(arguments)
    document = results.load(options.results)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        with plt.rc_context(_STYLE):
            if (figure := draw(document)) is None:
                print(f"{name}: not in these results")
                continue
            path = options.output / f"{name}.png"
            figure.savefig(path, dpi=130, bbox_inches="tight", metadata={"Software": None})
            plt.close(figure)
            print(path)


if __name__ == "__main__":
    main()
