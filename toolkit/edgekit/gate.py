"""The accuracy gate: of what was measured, the fastest that is accurate enough ships."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit.candidates import BASELINE, Measured
from edgekit.profiles import EngineName, Profile
from edgekit_runtime.errors import BuildError

# The exported float32 graph is the same arithmetic as PyTorch's, in another order.
SAME_GRAPH = 0.995


def check_export(baseline: Measured) -> None:
    """Raises BuildError when the float32 graph is not the network: nothing else would mean anything then."""
    if baseline.agreement < SAME_GRAPH:
        raise BuildError(
            f"The exported graph differs from PyTorch: {baseline.agreement:.2%} of the golden pixels agree.",
            hint="An operation of the network does not survive the export; please report this network.",
        )


def verdict(row: Measured, profile: Profile) -> str:
    """Why a candidate may not ship; empty when it may."""
    if row.drop * 100 > profile.allowed_drop_points:
        return f"loses {row.drop * 100:.2f} points of mIoU, {profile.allowed_drop_points:g} are allowed"
    if row.agreement < profile.min_agreement:
        return f"agrees with PyTorch in {row.agreement:.1%} of the pixels, {profile.min_agreement:.0%} are asked for"
    return ""


def choose(rows: Sequence[Measured], profile: Profile, engine: EngineName) -> Measured | None:
    """The fastest candidate of an engine that passes; only precisions of the profile's ladder count."""
    passed = [
        row
        for row in rows
        if row.candidate.variant.engine == engine
        and row.candidate.variant.precision in profile.precisions
        and not verdict(row, profile)
    ]
    return min(passed, key=lambda row: row.p50_ms, default=None)


def require(rows: Sequence[Measured], profile: Profile) -> Measured:
    """The candidate to ship on the profile's own engine. Raises BuildError that says by how much none passed."""
    best = choose(rows, profile, profile.engine)
    if best is not None:
        return best
    reasons = [
        f"{row.candidate.key} {verdict(row, profile)}"
        for row in rows
        if row.candidate.variant.engine == profile.engine and verdict(row, profile)
    ]
    raise BuildError(
        f"No candidate passed the accuracy gate of {profile.name}: {'; '.join(reasons) or 'none could be run'}.",
        hint=f"Allow more (allowed_drop_points), add {BASELINE} to precisions, or train the student further.",
    )


def candidate_table(
    rows: Sequence[Measured],
    profile: Profile,
    chosen: Measured,
    fallback: Measured | None,
    metric: str,
) -> list[dict[str, Any]]:
    """Rows for the manifest and for `--json`: latencies in ms, accuracy and its drop as fractions of one."""
    return [
        {
            "engine": row.candidate.variant.engine,
            "precision": row.candidate.variant.precision,
            "p50_ms": round(row.p50_ms, 3),
            "p95_ms": round(row.p95_ms, 3),
            "accuracy": round(row.miou, 5),
            "accuracy_drop": round(row.drop, 5),
            "accuracy_metric": metric,
            "agreement": round(row.agreement, 5),
            "size_bytes": row.candidate.size,
            "chosen": row is chosen,
            "fallback": row is fallback,
            "rejected": verdict(row, profile),
        }
        for row in rows
    ]
