"""PHG-MAE-Distil-430k by the papers' tool: `vre_network.py HEIGHT WIDTH`, a frame's bytes in, its class ids out."""

import sys

import numpy as np
import vre_networks
from serve import serve
from vre_video import VREVideo

height, width = map(int, sys.argv[1:3])
frames = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
video = VREVideo(frames, fps=25)
network = vre_networks.safeuav(height, width)
network.vre_setup()


def run():
    return network.memory_to_disk_fmt(network.compute(video, [0]).output)


run()
serve(run, parameters=sum(parameter.numel() for parameter in network.model.parameters()))
