"""`edgekit build`, `bench` and `profiles`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.commands.training import say_doubts
from edgekit.console import console, emit
from edgekit_runtime.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgekit.build import Built
    from edgekit.profiles import Profile

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def register(app: typer.Typer) -> None:
    app.command("build")(build)
    app.command("bench")(bench)
    app.command("profiles")(profiles)


def build(
    profile: Annotated[
        str, typer.Option("--profile", "-p", metavar="NAME", help="Device profile: a name or a .toml file.")
    ],
    student: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Student checkpoint; else the newest one below this folder.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Instead of a student: dpt-large, depth-anything-small, segformer-b0 ..., a checkpoint of "
            "transformers by name or folder, NET.onnx, or a torch module as FILE.py:NAME.",
        ),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What NET.onnx or FILE.py:NAME takes and answers, as TOML; else the one beside it."
        ),
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="WIDTHxHEIGHT", help="With --model: what the network sees; else as published.")
    ] = "",
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Data set to calibrate and judge with; else the student's.")
    ] = None,
    fine_tune: Annotated[
        int,
        typer.Option(
            "--fine-tune",
            metavar="STEPS",
            min=0,
            max=100_000,
            help="With a student: where INT8 loses more than the profile allows, fine-tune it for so many steps (300).",
        ),
    ] = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder for the bundle; else build/PROFILE.")
    ] = None,
    json: Json = False,
) -> None:
    """Turn a student, or a network that others have trained, into the fastest bundle that is as accurate as the profile
    asks.
    """
    from edgekit.profiles import load_profile

    if model is not None and student is not None:
        raise UsageError("--model and --student name two networks.", hint="Give one of them.")
    if size and model is None:
        raise UsageError("--size is of --model.", hint="What a student sees, the profile says: network_size.")
    if signature and model is None:
        raise UsageError("--signature is of --model.", hint="A student knows what it takes and answers.")
    if fine_tune and model is not None:
        raise UsageError(
            "--fine-tune is for students, not for --model.",
            hint="Of other networks, leave the layers that INT8 ruins in float: add mixed to the profile's precisions.",
        )
    target = load_profile(profile)
    # Only now what takes seconds to import: a misspelt profile is answered at once.
    from edgekit.locate import BUILD_FOLDER
    from edgekit_experts.dataset import Dataset

    if data is not None and not Dataset.exists(data):
        raise DataError(f"There is no data set at {data}.", hint="Check the path given with --data.")
    folder = output or BUILD_FOLDER / target.name
    if model is None:
        built = _build_student(student, target, folder, data, fine_tune)
    else:
        built = _build_model(model, signature, size, target, folder, data)
    if json:
        emit(_document(built))
    else:
        _show(built)


def _build_student(
    student: Path | None, target: Profile, output: Path, data: str | None, fine_tune_steps: int
) -> Built:
    from edgekit.build import build_student
    from edgekit.locate import DEFAULT_STUDENT, find_data, find_student
    from edgekit_student.checkpoint import read_config

    folder = student or find_student(Path.cwd())
    if folder == DEFAULT_STUDENT:
        console.print("Student: the one that comes with edgekit; there is none below this folder (or --student DIR).")
    elif student is None:
        console.print(f"Student: {_short(folder)}, the newest below this folder (or --student DIR).", markup=False)
    material = data if data is not None else find_data(read_config(folder), folder)
    return build_student(folder, target, output, material, _say, fine_tune_steps)


def _build_model(
    model: str, signature: Path | None, size: str, target: Profile, output: Path, data: str | None
) -> Built:
    from edgekit.build import build as build_bundle
    from edgekit.model_source import find_model
    from edgekit_experts.video import checked_size

    try:
        wanted = checked_size(size) if size else None
    except ValueError:
        raise UsageError(f"{size!r} is not a size.", hint="Write WIDTHxHEIGHT, such as 512x288.") from None
    return build_bundle(find_model(model, target, wanted, signature), output, data, _say)


def _say(text: str) -> None:
    console.print(text, markup=False)


def bench(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="What `edgekit build` wrote: the .edgekit file or its folder.")
    ],
    other: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="Another bundle, measured in turns with the first.")
    ] = None,
    frames: Annotated[int, typer.Option(min=10, max=100_000, help="Inferences to time.")] = 300,
    layers: Annotated[int, typer.Option(min=0, metavar="N", help="Also show the N slowest layers (OpenVINO).")] = 0,
    json: Json = False,
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
        _show_bench(result, named=other is not None)
    if ratio is not None:
        words = f"{1 / ratio:.2f} times faster" if ratio < 1 else f"{ratio:.2f} times slower"
        console.print(f"{other} is {words} than {bundle} (p50, measured in turns).", markup=False)


def _show_bench(result: Mapping[str, Any], *, named: bool) -> None:
    memory = f"{result['rss_mb']:.0f} MB" if result["rss_mb"] else "unknown"
    console.print(
        (f"{result['bundle']}: " if named else "")
        + f"{result['engine']}, {result['precision']}, {result['input_size'][1]}x{result['input_size'][0]}: "
        f"p50 {result['p50_ms']:.2f} ms, p90 {result['p90_ms']:.2f}, p99 {result['p99_ms']:.2f}, "
        f"{result['fps']:.0f} frames/s{_at_once(result['requests'])}\n"
        f"first result {result['cold_start_s']:.2f} s after the start of the process, memory {memory}",
        markup=False,
    )
    for layer in result.get("layers", ()):
        console.print(f"  {layer['ms']:7.3f} ms  {layer['precision']:5} {layer['name']}", markup=False)


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


def profiles(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one profile.")] = None,
    detected: Annotated[bool, typer.Option("--detect", help="Propose one for this machine.")] = False,
    json: Json = False,
) -> None:
    """List the device profiles, with a mark at those that this machine can run."""
    from edgekit.profiles import detect, load_profile, profile_names

    if detected:
        proposed, able = detect()
        if json:
            emit({"profile": proposed.name, "runs_here": [profile.name for profile in able]})
        else:
            others = ", ".join(profile.name for profile in able if profile != proposed)
            console.print(f"{proposed.name}: {proposed.description}.", markup=False)
            console.print(f"It can run these, too: {others or 'none'}.", markup=False)
            console.print(f"Next: edgekit build --profile {proposed.name}", markup=False)
        return
    found = [load_profile(name)] if name else [load_profile(each) for each in profile_names()]
    if json:
        emit({"profiles": [_profile_table(profile) for profile in found]})
    elif name:
        _show_profile(found[0])
    else:
        _list_profiles(found)


def _document(built: Built) -> dict[str, Any]:
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


def _show(built: Built) -> None:
    from rich.table import Table

    provenance = built.manifest.provenance
    asked, network = tuple(provenance["profile"]["input_size"]), tuple(provenance["network_size"])
    table = Table(
        title=f"Candidates for {built.manifest.profile}, input {_by(built.manifest.input_size)}",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 0, 0, 2),
    )
    labels = any(row["agreement"] is not None for row in built.candidates)
    depth = any(row["depth_error"] is not None for row in built.candidates)
    columns = {"p50 ms": "p50_ms", "p95 ms": "p95_ms"}
    if provenance["profile"]["hint"] == "throughput":
        columns["frames/s"] = "fps"
    if labels:
        columns |= {"mIoU %": "accuracy", "lost": "accuracy_drop", "agree %": "agreement"}
    if depth:
        columns |= {"depth off %": "depth_error"}
    table.add_column("candidate", no_wrap=True)
    for title in (*columns, "kB"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in built.candidates:
        verdict = "refused" if row["rejected"] else "passed"
        verdict = "ships" if row["chosen"] else "fallback" if row["fallback"] else verdict
        table.add_row(
            _name(row),
            *(_cell(row[field], 100 if "%" in title or title == "lost" else 1) for title, field in columns.items()),
            f"{row['size_bytes'] / 1000:.0f}",
            verdict,
            style="bold" if row["chosen"] else None,
        )
    console.print(table)
    for row in built.candidates:
        if row["rejected"]:
            console.print(f"Refused: {_name(row)}: {row['rejected']}.", markup=False)
    for each in built.manifest.smaller:
        for variant in each.variants:
            took = "not timed" if variant.p50_ms is None else f"{variant.p50_ms:.2f} ms"
            miou = "" if variant.miou is None else f", mIoU {100 * variant.miou:.2f} %"
            size = f"{each.input[2]}x{each.input[1]}"
            console.print(f"Smaller input {size}: {variant.engine} {variant.precision}, {took}{miou}.", markup=False)
    for skip in built.skipped:
        console.print(f"Not tried: {skip.candidate}: {skip.reason}.", markup=False)
    if reasons := list(dict.fromkeys(row["not_measured"] for row in built.candidates if row["not_measured"])):
        console.print(f"Not timed, only verified: {'; '.join(reasons)}.", markup=False)
    if labels:
        console.print("lost: points of mIoU against fp32; agree: pixels with the original network's class.")
    if depth:
        console.print("depth off: mean difference from fp32, as a share of the mean depth.")
    if labels and built.candidates[0]["accuracy_metric"] != "miou":
        console.print("Without labels, mIoU is agreement with the float32 class maps.")
    if built.manifest.input_size != asked:
        console.print(f"Input: the size that the network was trained at; the profile's is {_by(asked)} (network_size).")
    if network != built.manifest.input_size:
        console.print(f"The network sees the input at {_by(network)} (network_size of the profile).")
    megabytes = built.bundle.stat().st_size / 1e6
    console.print(
        f"{built.bundle} ({megabytes:.2f} MB) in {built.seconds:.0f} s; {built.report} shows it", markup=False
    )
    say_doubts(built.doubts)
    if power := provenance["profile"]["power"]:
        console.print(f"On the device: {power}", markup=False)
    console.print(f"Next: edgekit run --camera 0 --bundle {built.bundle}", markup=False)


def _name(row: Mapping[str, Any]) -> str:
    from edgekit.targets import Target

    return f"{Target(row['engine'], row['device'])} {row['precision']}"


def _cell(value: float | None, scale: float) -> str:
    return "–" if value is None else f"{scale * value:.2f}"


def _profile_table(profile: Profile) -> dict[str, Any]:
    reason = profile.missing()
    return {**profile.model_dump(mode="json"), "runs_here": not reason, "reason": reason}


def _show_profile(profile: Profile) -> None:
    table = {
        **_profile_table(profile),
        "input_size": _by(profile.input_size),
        "network_size": _network(profile),
        "smaller_inputs": [_by(size) for size in profile.smaller_inputs],
    }
    for key, value in table.items():
        console.print(f"{key:20} {_plain(value)}", markup=False)


def _list_profiles(found: list[Profile]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 2))
    for title in ("profile", "runs here", "target", "input", "precisions"):
        table.add_column(title, no_wrap=title != "precisions")
    for profile in found:
        table.add_row(
            profile.name,
            "no" if profile.missing() else "yes",
            str(profile.target),
            _by(profile.input_size),
            ", ".join(profile.precisions),
        )
    console.print(table)
    for profile in found:
        reason = profile.missing()
        console.print(f"{profile.name}: {profile.description}{f' ({reason})' if reason else ''}.", markup=False)
    console.print("input: of the frames; where network_size is `student`, the size of the student's training instead.")


def _network(profile: Profile) -> str:
    return profile.network_size if isinstance(profile.network_size, str) else _by(profile.network_size)


def _by(size: tuple[int, int]) -> str:
    """(height, width) as people write it."""
    return f"{size[1]}x{size[0]}"


def _plain(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _short(path: Path) -> Path:
    """Relative to the working directory where that is shorter."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
