"""Hostile bundles are made from true ones, which the runtime's tests know how to build."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtime"))
