"""`csi:N`, a camera at a Jetson's CSI connector, and `gst:PIPELINE`, whatever else GStreamer reads.

Pipelines run in a process of their own, as decoders do: one that hangs or crashes is started again. They need an OpenCV
that was built with GStreamer, which JetPack's and Debian's are and the wheels of PyPI are not.
"""

from __future__ import annotations

import cv2

from edgekit_runtime.errors import SourceError, UsageError
from edgekit_runtime.sources.network import LiveStream
from edgekit_runtime.sources.protocol import Job
from edgekit_runtime.sources.uri import SourceUri

# The newest picture, as soon as it is there.
_END = "video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"


def open_uri(uri: SourceUri) -> LiveStream:
    pipeline = csi_pipeline(uri) if uri.scheme == "csi" else whole_pipeline(uri)
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise SourceError(
            f"{uri.text}: this OpenCV was built without GStreamer, as all wheels are.",
            hint="JetPack's and Debian's python3-opencv have it: use the system's Python, or a virtual environment "
            "made with --system-site-packages.",
        )
    return LiveStream(uri.text, Job(pipeline=pipeline, live=True))


def csi_pipeline(uri: SourceUri) -> str:
    """For `csi:N?size=1280x720&fps=30&flip=0`: the camera's own memory is converted by the Jetson's hardware.

    `flip` is nvvidconv's flip-method: 0 as it is, 2 upside down. Raises UsageError.
    """
    uri.check_options("size", "fps", "flip")
    number = uri.body or "0"
    if not (number.isascii() and number.isdigit() and len(number) <= 2):
        raise UsageError(f"{uri.text}: a CSI camera is a number, like csi:0.")
    width, height = uri.size((1280, 720))
    fps, flip = round(uri.number("fps", 30, 1, 240)), round(uri.number("flip", 0, 0, 7))
    return (
        f"nvarguscamerasrc sensor-id={number} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1 ! "
        f"nvvidconv flip-method={flip} ! video/x-raw,format=BGRx ! videoconvert ! {_END}"
    )


def whole_pipeline(uri: SourceUri) -> str:
    """A pipeline with its end, an appsink with BGR pictures, where it has none of its own. Raises UsageError."""
    pipeline = uri.body.strip().removesuffix("!").rstrip()
    if not pipeline:
        raise UsageError(f"{uri.text} has no pipeline.", hint="gst:v4l2src device=/dev/video0")
    return pipeline if "appsink" in pipeline else f"{pipeline} ! videoconvert ! {_END}"
