"""Run by the Python of an environment that holds video-representations-extractor: its own experts over given frames.

    python vre_extract.py FRAMES.npz OUT_FOLDER

FRAMES.npz has `rgb` uint8 (N, H, W, 3) and `depth` float32 (N, H, W, 1). Prints one JSON object: the seconds that the
whole run took, with storing, as its command does it. What it computes is what it has without weights: rgb, hsv, Canny
and normals by SVD in a window of 11×11.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["VRE_PBAR"] = "0"
os.environ["VRE_LOGLEVEL"] = "0"

import numpy as np
from vre import VRE, ReprOut
from vre.utils import MemoryData
from vre_repository.color.hsv import HSV
from vre_repository.color.rgb import RGB
from vre_repository.depth import DepthRepresentation
from vre_repository.edges.canny import Canny
from vre_repository.normals.depth_svd import DepthNormalsSVD
from vre_video import VREVideo


class GivenDepth(DepthRepresentation):
    """Depth that is there already: costs it nothing."""

    def __init__(self, depth, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth

    def compute(self, video, ixs, dep_data=None):
        return ReprOut(frames=video[ixs], output=MemoryData(self.depth[ixs]), key=ixs)


def main() -> None:
    data = np.load(sys.argv[1])
    video = VREVideo(data["rgb"], fps=25)
    height, width = data["rgb"].shape[1:3]
    depth = GivenDepth(data["depth"], name="depth", min_depth=0, max_depth=1000, dependencies=[])
    rgb = RGB(name="rgb", dependencies=[])
    representations = [
        depth,
        rgb,
        HSV(name="hsv", dependencies=[rgb]),
        Canny(name="canny", dependencies=[], threshold1=100, threshold2=200, aperture_size=3, l2_gradient=True),
        DepthNormalsSVD(
            name="normals", dependencies=[depth], sensor_fov=75, sensor_size=(width, height), window_size=11
        ),
    ]
    for representation in representations:
        representation.set_compute_params(batch_size=1)
        binary = "not-set" if representation is depth else "npz"
        representation.set_io_params(binary_format=binary, image_format="not-set", compress=True)
    started = time.monotonic()
    VRE(video, representations).run(Path(sys.argv[2]), frames=list(range(len(data["rgb"]))))
    print(json.dumps({"seconds": time.monotonic() - started, "frames": len(data["rgb"])}))


main()
