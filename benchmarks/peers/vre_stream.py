"""The papers' tool as it streams a video: `vre_stream.py VIDEO`, for each line the next frame of the file, coloured.

Its own loop (`vre[[number]]`) over its own reader (the program ffmpeg) with PHG-MAE-Distil-430k. Colours are looked up
here: its own pictures, with class names in them, need pycocotools, and take it longer.
"""

import itertools
import sys

import numpy as np
import vre_networks
from serve import serve
from vre import VRE
from vre_video import VREVideo

video = VREVideo(sys.argv[1])
network = vre_networks.safeuav(*video.frame_shape[:2])
network.set_compute_params(batch_size=1)
network.set_io_params(binary_format="not-set", image_format="not-set", compress=True)
network.vre_setup()
stream = VRE(video, [network])
colours = np.array(network.color_map, np.uint8)
numbers = itertools.cycle(range(len(video)))


def run():
    said = stream[[next(numbers)]][network.name]
    shown = said.frames // 2 + colours[network.memory_to_disk_fmt(said.output)] // 2
    assert shown.shape == (1, *video.frame_shape)


run()
serve(run, size=list(video.frame_shape[:2]))
