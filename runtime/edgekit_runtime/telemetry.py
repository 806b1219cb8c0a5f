"""No telemetry: OpenVINO and NNCF are told that their reporting package is not installed.

Both import `openvino_telemetry` at import time, send an event for that very import, and send nothing when the
package is absent: the absence is what both support without a consent file in the user's home. A `None` entry in
`sys.modules` is Python's own way to say that a module cannot be imported.
"""

from __future__ import annotations

import sys


def switch_off() -> None:
    """Call before the first import of openvino or nncf; afterwards neither opens a connection."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
