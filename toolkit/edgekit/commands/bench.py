"""`edgekit bench`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekit.console import console, emit, show_rows


def register(app: typer.Typer) -> None:
    app.command("bench")(bench)


def bench(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="What `edgekit build` wrote: the .edgekit file or its folder.")
    ],
    other: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="Another bundle, measured in turns with the first.")
    ] = None,
    frames: Annotated[int, typer.Option(min=10, max=100_000, help="Inferences to time.")] = 300,
    layers: Annotated[int, typer.Option(min=0, metavar="N", help="Also show the N slowest layers (OpenVINO).")] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Measure a bundle here: latency, throughput, start and memory, in a process of its own. Or compare two."""
    from edgekit.bench import measure_in_turns

    paths = [bundle, *([other] if other else [])]
    results = measure_in_turns(paths, frames)
    for path, result in zip(paths, results, strict=True):
        if layers:
            result["layers"] = _slowest(path, layers)
    ratio = round(results[1]["p50_ms"] / results[0]["p50_ms"], 3) if other else None
    if json:
        emit({**results[0], **({"other": results[1], "ratio_p50": ratio} if other else {})})
        return
    for result in results:
        show_rows(console, list(_facts(result)))
        show_rows(
            console,
            [(f"{layer['ms']:9.3f} ms", layer["precision"], layer["name"]) for layer in result.get("layers", ())],
        )
    if ratio is not None:
        words = f"{1 / ratio:.2f} times faster" if ratio < 1 else f"{ratio:.2f} times slower"
        console.print(f"{other} is {words} than {bundle} (p50, measured in turns).", markup=False)


def _facts(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "bundle", result["bundle"]
    yield "runs on", f"{result['engine']}, {result['precision']}, {result['input_size'][1]}x{result['input_size'][0]}"
    for reason in result["passed_over"]:
        yield "passed over", f"{reason.rstrip('.')}; the figures are of what runs instead"
    yield "latency", f"p50 {result['p50_ms']:.2f} ms, p90 {result['p90_ms']:.2f}, p99 {result['p99_ms']:.2f}"
    yield "throughput", f"{result['fps']:.1f} frames/s{_at_once(result['requests'])}"
    yield "first result", f"{result['cold_start_s']:.2f} s after the start of the process"
    yield "memory", f"{result['rss_mb']:.0f} MB" if result["rss_mb"] else "unknown"


def _at_once(requests: int) -> str:
    return f" with {requests} at once" if requests > 1 else ""


def _slowest(path: Path, count: int) -> list[dict[str, Any]]:
    """The slowest layers of the variant that runs here."""
    import numpy as np

    from edgekit.layers import layers_of
    from edgekit_runtime import load
    from edgekit_runtime.bundle import open_bundle

    with load(path) as model:
        image = np.random.default_rng(0).integers(0, 256, (1, *model.manifest.input_size, 3), np.uint8)
        found = layers_of(open_bundle(path), model.variant, image)
    return [vars(layer) for layer in sorted(found, key=lambda layer: -layer.ms)[:count]]
