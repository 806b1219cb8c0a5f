"""Pictures of a run: `python benchmarks/plot.py RESULTS.json [...] -o docs/pictures/benchmarks`.

inference.png   students beside what people use today, milliseconds a frame
roofline.png    networks below this machine's limits
table.png       the papers' table, redone
scaling.png     how cost grows, with exponents

Needs matplotlib, which `edgekit[bench]` brings.
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
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

OURS, OTHERS = "#0b6e4f", "#8d99ae"
COLOURS = {"int8": OURS, "bf16": "#d17a22", "fp32": "#5b5f97"}
STYLE = {
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
DPI = 110
Document = Mapping[str, Any]


def inference(document: Document) -> Figure | None:
    """One bar for each contender, on a logarithmic scale."""
    spent = results.medians(document, "test_inference.py")
    if not spent:
        return None
    names = sorted(spent, key=lambda name: -spent[name])
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.22 * len(names)))
    colours = [OURS if " openvino" in name else OTHERS for name in names]
    bars = axes.barh(names, [spent[name] for name in names], color=colours)
    axes.bar_label(bars, [f" {short(spent[name])}" for name in names], fontsize=8)
    axes.set(xscale="log", xlabel="milliseconds a frame of 960x544, bytes in, class ids out (logarithmic)")
    axes.set_title(f"Green: as edgekit builds it. {machine_of(document)}")
    plain(axes.xaxis)
    return figure


def roofline(document: Document) -> Figure | None:
    found = results.extra(document, "test_roofline")
    if not found:
        return None
    limits = found["limits"]
    figure, axes = plt.subplots(figsize=(7, 4.4))
    intensities = [place["intensity"] for place in found["networks"]]
    low, high = min(intensities) / 3, max(intensities) * 2
    slope = limits["bandwidth_gbs"]
    for precision, colour in COLOURS.items():
        peak = limits["peak_gops"][precision]
        axes.plot([low, peak / slope, high], [low * slope, peak, peak], color=colour, linewidth=1)
        axes.text(high, peak, f" {precision}", color=colour, va="center")
        here = [place for place in found["networks"] if place["precision"] == precision]
        axes.scatter([p["intensity"] for p in here], [p["gops_per_s"] for p in here], color=colour, s=16, zorder=3)
        for number, p in enumerate(sorted(here, key=lambda place: place["intensity"])):
            # Neighbours are named on either side.
            offset, side = ((-4, 3), "right") if number % 2 else ((4, -8), "left")
            spot, told = (p["intensity"], p["gops_per_s"]), {"fontsize": 7, "color": colour, "ha": side}
            axes.annotate(p["network"], spot, offset, textcoords="offset points", **told)
    axes.set(xscale="log", yscale="log", ylabel="Gop/s")
    axes.set_xlabel("operations a byte, if every layer went through memory")
    axes.set_title(f"Lines: large convolutions, and copying at {slope:.0f} GB/s. {machine_of(document)}")
    plain(axes.xaxis, axes.yaxis)
    return figure


def table(document: Document) -> Figure | None:
    """A panel for each row of the table, a group of bars for each size."""
    cells: dict[str, dict[str, Mapping[str, float]]] = {}
    for entry in document["benchmarks"]:
        if "test_table.py" in entry["fullname"]:
            what, _, size = entry["fullname"].partition("[")[2].removesuffix("]").rpartition("-")
            cells.setdefault(what, {})[size] = entry["extra_info"]["seconds_per_100_frames"]
    if not cells:
        return None
    figure, panels = plt.subplots(1, len(cells), figsize=(3.4 * len(cells), 3.8), squeeze=False)
    for axes, (what, sizes) in zip(panels[0], cells.items(), strict=True):
        ordered = sorted(sizes, key=lambda size: int(size.partition("x")[0]))
        names = list(dict.fromkeys(name for size in ordered for name in sizes[size]))
        for number, name in enumerate(names):
            values = [sizes[size].get(name, float("nan")) for size in ordered]
            places = [index + (number - len(names) / 2 + 0.5) * 0.8 / len(names) for index in range(len(ordered))]
            colour = OTHERS if name.startswith("VRE") else OURS
            like = [other for other in names if other.startswith("VRE") == name.startswith("VRE")]
            alpha = 1 - 0.22 * like.index(name)
            axes.bar(places, values, 0.75 / len(names), color=colour, alpha=alpha, label=name)
        axes.set_xticks(range(len(ordered)), ordered, fontsize=7)
        axes.set(yscale="log", title=f"RGB + {what}")
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)
        plain(axes.yaxis)
    panels[0][0].set_ylabel("seconds per 100 frames, stored")
    return figure


def scaling(document: Document) -> Figure | None:
    """A panel for each exponent; both scales are logarithmic."""
    found = list(results.growths(document))
    if not found:
        return None
    columns = 3
    rows = -(-len(found) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(8, 2.1 * rows), squeeze=False)
    for axes, (_, name, grown) in zip(panels.flat, found, strict=False):
        x, y = [float(key) for key in grown["points"]], list(grown["points"].values())
        axes.plot(x, y, "o-", color=OURS, markersize=3, linewidth=1)
        axes.set(xscale="log", yscale="log", ylim=(min(y) / 2, max(y) * 2))
        axes.set_title(f"{name.replace(' by ', chr(10) + 'by ')}: exponent {grown['exponent']:.2f}", fontsize=8)
        axes.set_xticks(x, [short(value) for value in apart(x)], fontsize=6.5)
        ends = [min(y), max(y)] if max(y) > 1.2 * min(y) else [max(y)]
        axes.set_yticks(ends, [short(value) for value in ends], fontsize=6.5)
        axes.minorticks_off()
    for axes in panels.flat[len(found) :]:
        axes.axis("off")
    return figure


PICTURES: Mapping[str, Callable[[Document], Figure | None]] = {
    "inference": inference,
    "roofline": roofline,
    "table": table,
    "scaling": scaling,
}


def plain(*axes: Axis) -> None:
    """Ticks are numbers, not powers."""
    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())


def apart(values: Sequence[float]) -> list[float]:
    """The same, with NaN for those whose names would touch the one before on a logarithmic scale."""
    shown: list[float] = []
    last = 0.0
    for place, value in enumerate(values):
        fits = value > 1.5 * last or place == len(values) - 1
        last = value if fits else last
        shown.append(value if fits else float("nan"))
    return shown


def short(value: float) -> str:
    if value != value:
        return ""
    if value >= 1e5:
        return f"{value / 1e6:.2g}M"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine_of(document: Document) -> str:
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
        with plt.rc_context(STYLE):
            if (figure := draw(document)) is None:
                print(f"{name}: not in these results")
                continue
            path = options.output / f"{name}.png"
            figure.savefig(path, dpi=DPI, metadata={"Software": None})
            plt.close(figure)
            print(path)


if __name__ == "__main__":
    main()
