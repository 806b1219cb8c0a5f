"""OpenCV's own network module: `opencv_dnn.py MODEL.onnx HEIGHT WIDTH`, camera bytes in, class ids out.

The file holds the bare network, float32 RGB in, logits out: what it does to a picture is OpenCV's `blobFromImage`.
"""

import os
import sys

import cv2
import numpy as np
from serve import serve

cv2.setNumThreads(int(os.environ["OMP_NUM_THREADS"]))
height, width = map(int, sys.argv[2:4])
frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def run(network):
    network.setInput(cv2.dnn.blobFromImage(frame, 1 / 255, (width, height), swapRB=True))
    return network.forward()[0].argmax(axis=0).astype(np.uint8)


for engine in (cv2.dnn.ENGINE_AUTO, cv2.dnn.ENGINE_CLASSIC):
    network = cv2.dnn.readNetFromONNX(sys.argv[1], engine)
    try:
        run(network)
        break
    except cv2.error as error:  # the newer engine cannot run every network, and says so only now
        refused = error
else:
    raise refused
serve(lambda: run(network), version=cv2.__version__, engine=engine)
