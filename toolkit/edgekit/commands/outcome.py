"""What `edgekit build` says at its end: the candidates, what ships, and what to do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.commands.training import say_doubts
from edgekit.console import console

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgekit.build import Built

# Left out, the first first, where the terminal is too narrow for all; the report has them.
_LESSER = ("p95 ms", "kB", "agree %", "lost")
_GAP = 2


def document(built: Built) -> dict[str, Any]:
    """For `--json`."""
    return {
        "bundle": str(built.bundle),
        "size_bytes": built.bundle.stat().st_size,
        "profile": built.manifest.profile,
        "input_size": list(built.manifest.input_size),
        "data": built.origin,
        "candidates": [dict(row) for row in built.candidates],
        "skipped": [vars(skip) for skip in built.skipped],
        "smaller": [
            {
                "input_size": list(each.input[1:3]),
                "engine": variant.engine,
                "precision": variant.precision,
                "p50_ms": variant.p50_ms,
                "miou": variant.miou,
            }
            for each in built.manifest.smaller
            for variant in each.variants
        ],
        "doubts": list(built.doubts),
        "report": str(built.report),
        "seconds": round(built.seconds, 1),
    }


def show(built: Built) -> None:
    """For people: the table within the width of the terminal, then what it means."""
    manifest = built.manifest
    profile = manifest.provenance["profile"]
    console.print(f"Candidates for {manifest.profile}, input {_by(manifest.input_size)}", markup=False)
    shown = _show_table(built)
    for line in (*_about_rows(built), *_about_columns(built, shown), *_about_sizes(built)):
        console.print(line, markup=False)
    megabytes = built.bundle.stat().st_size / 1e6
    console.print(
        f"{built.bundle} ({megabytes:.2f} MB) in {built.seconds:.0f} s; {built.report} shows it", markup=False
    )
    say_doubts(built.doubts)
    if profile["power"]:
        console.print(f"On the device: {profile['power']}", markup=False)
    for line in _next_steps(built):
        console.print(line, markup=False)


def _show_table(built: Built) -> list[str]:
    """Returns the titles of the columns that there was room for."""
    from rich.table import Table

    columns = _columns(built)
    widths = {title: max(map(len, (title, *cells))) for title, cells in columns.items()}
    for title in _LESSER:
        if sum(widths.values()) + _GAP * (len(widths) - 1) > console.width:
            widths.pop(title, None)
    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, _GAP))
    for title in widths:
        table.add_column(title, no_wrap=True, justify="left" if title in ("candidate", "verdict") else "right")
    for number, row in enumerate(built.candidates):
        table.add_row(*(columns[title][number] for title in widths), style="bold" if row["chosen"] else None)
    console.print(table)
    return list(widths)


def _columns(built: Built) -> dict[str, list[str]]:
    """The cells of the table by the titles of its columns."""
    rows = built.candidates

    def figures(field: str, scale: float = 1) -> list[str]:
        return ["–" if row[field] is None else f"{scale * row[field]:.2f}" for row in rows]

    columns = {"candidate": list(map(_name, rows)), "p50 ms": figures("p50_ms"), "p95 ms": figures("p95_ms")}
    if built.manifest.provenance["profile"]["hint"] == "throughput":
        columns["frames/s"] = figures("fps")
    if any(row["agreement"] is not None for row in rows):
        columns["mIoU %"] = figures("accuracy", 100)
        columns["lost"] = figures("accuracy_drop", 100)
        columns["agree %"] = figures("agreement", 100)
    if any(row["depth_error"] is not None for row in rows):
        columns["depth off %"] = figures("depth_error", 100)
    return {
        **columns,
        "kB": [f"{row['size_bytes'] / 1000:.0f}" for row in rows],
        "verdict": list(map(_verdict, rows)),
    }


def _about_rows(built: Built) -> Iterator[str]:
    for row in built.candidates:
        if row["rejected"]:
            yield f"Refused: {_name(row)}: {row['rejected']}."
    of_what = "" if _labelled(built) else " of fp32's class maps"
    for each in built.manifest.smaller:
        for variant in each.variants:
            took = "not timed" if variant.p50_ms is None else f"{variant.p50_ms:.2f} ms"
            miou = "" if variant.miou is None else f", mIoU {100 * variant.miou:.2f} %{of_what}"
            yield f"Smaller input {each.input[2]}x{each.input[1]}: {variant.engine} {variant.precision}, {took}{miou}."
    for skip in built.skipped:
        yield f"Not tried: {skip.candidate}: {skip.reason}."
    blind = [row for row in built.candidates if row["not_measured"]]
    for reason in dict.fromkeys(row["not_measured"] for row in blind):
        ran_on = dict.fromkeys(row["ran_on"] for row in blind if row["not_measured"] == reason)
        yield f"Not timed, only verified here, with {' and '.join(ran_on)}: {reason}."


def _about_columns(built: Built, shown: Sequence[str]) -> Iterator[str]:
    meanings = {
        "lost": "points of mIoU against fp32",
        "agree %": "pixels with the original network's class",
        "depth off %": "mean difference from fp32, as a share of the mean depth",
    }
    told = [f"{title.removesuffix(' %')}: {meaning}" for title, meaning in meanings.items() if title in shown]
    if told:
        yield f"{'; '.join(told)}."
    if "mIoU %" in shown and not _labelled(built):
        yield "Without labels, mIoU is agreement with the float32 class maps."
    left_out = [title for title in _columns(built) if title not in shown]
    if left_out:
        yield f"Too narrow here for {', '.join(left_out)}: the report has all columns."


def _about_sizes(built: Built) -> Iterator[str]:
    manifest = built.manifest
    asked = tuple(manifest.provenance["profile"]["input_size"])
    network = tuple(manifest.provenance["network_size"])
    if manifest.input_size != asked:
        yield f"Input: what the network was trained at, or --size says; the profile's is {_by(asked)} (network_size)."
    if network != manifest.input_size:
        yield f"The network sees the input at {_by(network)} (network_size of the profile)."


def _next_steps(built: Built) -> Iterator[str]:
    """Here, where anything was timed here; on the device, where what ships was not."""
    chosen = next(row for row in built.candidates if row["chosen"])
    timed = [variant for variant in built.manifest.variants if variant.p50_ms is not None]
    if chosen["not_measured"]:
        yield f"Next, on the device: copy {built.bundle} there (docs/devices.md), then"
        if chosen["engine"] == "tensorrt":
            yield f"  edgekit-run prepare {built.bundle.name}"
        yield f"  edgekit-run {built.bundle.name} --camera 0"
    if timed:
        here = f"Here, on {timed[0].engine} {timed[0].device}" if chosen["not_measured"] else "Next"
        yield f"{here}: edgekit run --camera 0 --bundle {built.bundle}"


def _labelled(built: Built) -> bool:
    return bool(built.candidates[0]["accuracy_metric"] == "miou")


def _name(row: Mapping[str, Any]) -> str:
    from edgekit.targets import Target

    return f"{Target(row['engine'], row['device'])} {row['precision']}"


def _verdict(row: Mapping[str, Any]) -> str:
    if row["chosen"]:
        return "ships"
    if row["fallback"]:
        return "fallback"
    return "refused" if row["rejected"] else "passed"


def _by(size: Sequence[int]) -> str:
    """(height, width) as people write it."""
    return f"{size[1]}x{size[0]}"
