"""The accuracy gate: of what was measured, the fastest that is accurate enough ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgekit.candidates import BASELINE, Measured
from edgekit.profiles import Profile
from edgekit.targets import Target
from edgekit_runtime.errors import BuildError
from edgekit_runtime.manifest import Variant

# The exported float32 graph is the same arithmetic as the original's, in another order.
SAME_GRAPH = 0.995
SAME_DEPTH = 0.005


def check_export(baseline: Measured, original: str) -> None:
    """Raises BuildError when the float32 graph is not the network as the library `original` runs it: nothing else would
    mean anything then.
    """
    found = baseline.original
    if found.agreement is not None and found.agreement < SAME_GRAPH:
        what = f"{found.agreement:.2%} of the golden pixels agree"
    elif found.depth_error is not None and not found.depth_error <= SAME_DEPTH:
        what = f"depth is off by {found.depth_error:.2%}"
    else:
        return
    raise BuildError(
        f"The exported graph differs from {original}: {what}.",
        hint="An operation of the network does not survive the export; please report this network.",
    )


def verdict(row: Measured, profile: Profile) -> str:
    """Why a candidate may not ship, with what was measured and what is allowed; empty when it may."""
    agreement, depth = row.original.agreement, row.baseline.depth_error
    if row.drop is not None and row.drop * 100 > (allowed := profile.allowed_drop_points):
        return f"loses {_beyond(row.drop * 100, allowed)} points of mIoU (allowed: {allowed:g})"
    if agreement is not None and agreement * 100 < (asked := profile.min_agreement * 100):
        found = _beyond(agreement * 100, asked)
        return f"agrees with the original in {found} % of the pixels (asked for: {asked:.4g} %)"
    if depth is not None and not depth * 100 <= (allowed := profile.allowed_depth_error_percent):
        return f"shifts depth by {_beyond(depth * 100, allowed)} % (allowed: {allowed:g} %)"
    return ""


def _beyond(value: float, limit: float) -> str:
    """Two digits, and more where those would read as the limit itself."""
    return next((text for digits in range(2, 9) if float(text := f"{value:.{digits}f}") != limit), f"{value}")


def choose(rows: Sequence[Measured], profile: Profile, target: Target) -> Measured | None:
    """The fastest candidate of a target that passes, in latency or throughput as the profile hints; only precisions of
    its ladder count.

    Where this machine cannot time them, the first in the ladder.
    """
    passed = [
        row
        for row in rows
        if row.candidate.target == target
        and row.candidate.variant.precision in profile.precisions
        and not verdict(row, profile)
    ]

    def pace(row: Measured) -> float:
        place = [str(precision) for precision in profile.precisions].index(row.candidate.variant.precision)
        if row.p50_ms is None or row.fps is None:
            return place
        return 1 / row.fps if profile.hint == "throughput" else row.p50_ms

    return min(passed, key=pace, default=None)


def require(rows: Sequence[Measured], profile: Profile) -> Measured:
    """The candidate to ship on the profile's own target. Raises BuildError that says by how much none passed."""
    best = choose(rows, profile, profile.target)
    if best is not None:
        return best
    reasons = [
        f"{row.candidate.key} {verdict(row, profile)}"
        for row in rows
        if row.candidate.target == profile.target and row.candidate.variant.precision in profile.precisions
    ]
    raise BuildError(
        f"No candidate passed the accuracy gate of {profile.name}: {'; '.join(reasons) or 'none could be run'}.",
        hint="Allow more (allowed_drop_points, min_agreement, allowed_depth_error_percent), "
        f"add {BASELINE} to precisions, or train the student further.",
    )


def variant(row: Measured) -> Variant:
    """The variant with what was measured of it."""
    return replace(
        row.candidate.variant,
        p50_ms=rounded(row.p50_ms, 3),
        miou=rounded(row.miou),
        drop=rounded(row.drop),
        depth_error=rounded(row.baseline.depth_error),
    )


def candidate_table(
    rows: Sequence[Measured],
    profile: Profile,
    chosen: Measured,
    fallbacks: Sequence[Measured],
    metric: str,
) -> list[dict[str, Any]]:
    """Rows for the manifest and for `--json`: latencies in ms, accuracy and its drop as fractions of one.

    `metric` says what accuracy is of labels; where there are none, it is one minus the error of depth against fp32.
    `not_measured` says why latencies are None.
    """
    return [
        {
            "engine": row.candidate.variant.engine,
            "precision": row.candidate.variant.precision,
            "device": row.candidate.variant.device,
            "p50_ms": rounded(row.p50_ms, 3),
            "p95_ms": rounded(row.p95_ms, 3),
            "fps": rounded(row.fps, 1),
            "not_measured": row.candidate.absent,
            "ran_on": row.ran_on,
            "quantised": row.candidate.way,
            **_accuracy(row, metric),
            "agreement": rounded(row.original.agreement),
            "depth_error": rounded(row.baseline.depth_error),
            "depth_error_original": rounded(row.original.depth_error),
            "size_bytes": row.candidate.size,
            "chosen": row is chosen,
            "fallback": any(row is fallback for fallback in fallbacks),
            "rejected": verdict(row, profile),
        }
        for row in rows
    ]


def _accuracy(row: Measured, metric: str) -> dict[str, Any]:
    if row.miou is not None:
        return {"accuracy": rounded(row.miou), "accuracy_drop": rounded(row.drop), "accuracy_metric": metric}
    error = row.baseline.depth_error or 0.0
    return {"accuracy": rounded(1 - error), "accuracy_drop": rounded(error), "accuracy_metric": "depth against fp32"}


def rounded(value: float | None, digits: int = 5) -> float | None:
    """As manifests have it; None stays None."""
    return None if value is None else round(value, digits)
