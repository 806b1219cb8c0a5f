"""The exact ground truth that the synthetic world gives, as modality declarations.

All are marked `truth`: training never reads them unless it is told to by name.
"""

from __future__ import annotations

from edgekit_experts.taxonomies import DRONESCAPES
from edgekit_runtime.modality import Kind, Modality

LABELS = Modality("labels", Kind.LABELS, taxonomy=DRONESCAPES, truth=True)
DEPTH = Modality("true_depth", Kind.DEPTH, dtype="float16", range=(0.0, 65504.0), unit="m", truth=True)
NORMALS = Modality("true_normals", Kind.NORMALS, channels=3, dtype="float16", range=(-1.0, 1.0), truth=True)
FLOW = Modality("true_flow", Kind.FLOW, channels=2, dtype="float16", unit="px", truth=True)

TRUTH = (LABELS, DEPTH, NORMALS, FLOW)
