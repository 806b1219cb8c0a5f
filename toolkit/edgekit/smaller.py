"""The network of a build for smaller frames, too: what the runtime takes while it is too slow for a live source.

Each is made as what ships was made, and passes the same gate on the same frames, or is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgekit import candidates as forms
from edgekit import gate
from edgekit.candidates import Form, Measured
from edgekit.console import progress
from edgekit.exportable import Exportable
from edgekit.material import Material
from edgekit.quantise import WAYS
from edgekit.targets import TENSORRT, EngineName, Precision
from edgekit.trial import measure
from edgekit_runtime.errors import BuildError
from edgekit_runtime.manifest import Smaller


def make_smaller(
    exporter: Exportable, shipped: Sequence[Measured], material: Material, say: Callable[[str], None]
) -> tuple[tuple[Smaller, ...], dict[str, bytes]]:
    """What `shipped` is for the profile's `smaller_inputs`, and its files; says of each that is left out why."""
    made: list[Smaller] = []
    files: dict[str, bytes] = {}
    above = exporter.input_size
    for asked in exporter.profile.smaller_inputs:
        name = f"{asked[1]}x{asked[0]}"
        smaller = exporter.at(asked)
        if smaller is None:
            say(f"No smaller input {name}: the network takes {above[1]}x{above[0]} only.")
            continue
        if not all(side < other for side, other in zip(smaller.input_size, above, strict=True)):
            say(f"No smaller input {name}: the network would see {above[1]}x{above[0]} anyway.")
            continue
        variants = []
        try:
            for row in _measured(smaller, shipped, material.at(smaller.input_size)):
                if reason := gate.verdict(row, smaller.profile):
                    say(f"No smaller input {name} for {row.candidate.key}: it {reason}.")
                    continue
                folder, variant = "{1}x{0}".format(*smaller.input_size), gate.variant(row)
                variants.append(replace(variant, model=f"{folder}/{variant.model}"))
                files |= {f"{folder}/{file}": data for file, data in row.candidate.files.items()}
        except BuildError as error:
            say(f"No smaller input {name}: {error.args[0]}")
        if variants:
            outputs = tuple(spec.shape for spec in smaller.outputs)
            made.append(Smaller(smaller.input.shape, outputs, tuple(variants)))
            above = smaller.input_size
    return tuple(made), files


def _measured(exporter: Exportable, shipped: Sequence[Measured], material: Material) -> list[Measured]:
    """`shipped` at the exporter's size. Raises BuildError where the graph is not the network at that size."""
    profile = exporter.profile
    ways = {row.candidate.key: (row.candidate.way,) for row in shipped if row.candidate.way}
    wanted = {row.candidate.key for row in shipped if row.candidate.target.engine not in TENSORRT}
    steps = [step for step in forms.ladder(profile) if "{} {}".format(*step) in wanted]
    if forms.baseline(profile) not in steps:
        steps.append(forms.baseline(profile))
    ready: dict[tuple[EngineName, Precision], Form] = {}
    made = []
    height, width = exporter.input_size
    with progress(f"Smaller input {width}x{height}", len(steps)) as advance:
        for target, precision in steps:
            key = target.engine, precision
            if key not in ready:
                way = ways.get(f"{target} {precision}", WAYS)
                ready[key] = forms.make_form(exporter, *key, material, ready.get((target.engine, "int8")), way)
            made.append(forms.make_candidate(ready[key], target, precision, profile))
            advance()
    trial = measure(exporter, made, material)
    rows = {row.candidate.key: row for row in trial.rows}
    if trial.baseline not in rows:
        raise BuildError(f"{profile.target.engine} cannot run the float32 graph here.")
    gate.check_export(rows[trial.baseline], exporter.original)
    return [row for key, row in rows.items() if key in wanted]
