"""A cell of the paper's table by the papers' own tool: `vre_table.py FRAMES.npy WHAT BATCH OUT_FOLDER`.

FRAMES.npy is uint8 (N, H, W, 3), WHAT is hsv, phg-mae-distil-430k or dpt; rgb goes with each. Prints one JSON object:
the seconds that its own `run` took, with storing as compressed npz, after the network was there and had run once.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import vre_networks
from vre import VRE
from vre_repository.color.hsv import HSV
from vre_repository.color.rgb import RGB
from vre_video import VREVideo

frames = np.load(sys.argv[1])
what, batch, out = sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
rgb = RGB(name="rgb", dependencies=[])
if what == "hsv":
    other = HSV(name="hsv", dependencies=[rgb])
elif what == "dpt":
    other = vre_networks.dpt()
else:
    other = vre_networks.safeuav(*frames.shape[1:3])
for representation in (rgb, other):
    representation.set_compute_params(batch_size=batch)
    representation.set_io_params(binary_format="npz", image_format="not-set", compress=True)
if what != "hsv":
    other.vre_setup()
    other.compute(VREVideo(frames, fps=25), [0])
started = time.monotonic()
VRE(VREVideo(frames, fps=25), [rgb, other]).run(out, frames=list(range(len(frames))))
print(json.dumps({"seconds": time.monotonic() - started, "frames": len(frames)}))
