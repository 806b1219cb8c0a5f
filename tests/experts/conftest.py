"""Real clips where they are there, small ones made on the spot elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from clips import numbered_frames, write_clip

# Small bundles are made as the runtime's tests make them.
sys.path.append(str(Path(__file__).resolve().parents[1] / "runtime"))

REAL = Path(__file__).parents[3] / "shared" / "real"


@pytest.fixture(scope="session")
def real() -> Path:
    if not REAL.is_dir():
        pytest.skip(f"real data is absent ({REAL})")
    return REAL


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """70 numbered frames of 48x64: two whole work units and a part of a third."""
    return write_clip(tmp_path / "clip.mp4", numbered_frames(70, (48, 64)))
