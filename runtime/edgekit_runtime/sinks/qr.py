"""An address as a QR code in the terminal: nobody types a token into a phone."""

from __future__ import annotations

import cv2
import numpy as np

_MARGIN = 2  # on top of the two modules that OpenCV leaves around it
_BLOCKS = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def qr_code(text: str) -> str:
    """Lines of half blocks, black on white whatever the terminal's colours are."""
    light = cv2.QRCodeEncoder.create().encode(text) > 0
    light = np.pad(light, ((_MARGIN, _MARGIN + light.shape[0] % 2), (_MARGIN, _MARGIN)), constant_values=True)
    rows = zip(light[::2], light[1::2], strict=True)
    lines = ("".join(_BLOCKS[int(a), int(b)] for a, b in zip(upper, lower, strict=True)) for upper, lower in rows)
    return "\n".join(f"\x1b[97;40m{line}\x1b[0m" for line in lines)
