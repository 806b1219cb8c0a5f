"""GStreamer pipelines and the cameras of a Jetson. The wheels of OpenCV have no GStreamer; Debian's OpenCV has."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import pytest

import edgekit_runtime
from edgekit_runtime import SourceError, UsageError, open_source
from edgekit_runtime.sources.streams import csi_pipeline, whole_pipeline
from edgekit_runtime.sources.uri import parse_uri

SYSTEM_PYTHON = "/usr/bin/python3"
PACKAGES = Path(edgekit_runtime.__file__).parents[1]


def test_the_pipeline_of_a_jetson_asks_for_size_and_rate() -> None:
    """As NVIDIA's accelerated GStreamer guide has it: nothing but the last step is done by the CPU."""
    assert csi_pipeline(parse_uri("csi:1?size=1920x1080&fps=60&flip=2")) == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,framerate=60/1 ! "
        "nvvidconv flip-method=2 ! video/x-raw,format=BGRx ! videoconvert ! "
        "video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )
    assert "sensor-id=0 " in csi_pipeline(parse_uri("csi:"))


@pytest.mark.parametrize("uri", ["csi:left", "csi:0?size=9", "csi:0?flip=8", "csi:0 ! filesink", "gst:", "gst: ! "])
def test_what_makes_no_sense_is_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        open_source(uri)


def test_a_pipeline_gets_an_end_where_it_has_none() -> None:
    assert whole_pipeline(parse_uri("gst:a ? b=1 & c ! d")).startswith("a ? b=1 & c ! d ! videoconvert ! ")
    assert whole_pipeline(parse_uri("gst:a ! appsink name=x")) == "a ! appsink name=x"


@pytest.mark.parametrize("uri", ["csi:0", "gst:videotestsrc"])
def test_an_opencv_without_gstreamer_says_where_there_is_one(uri: str) -> None:
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer")
    with pytest.raises(SourceError, match="built without GStreamer") as caught:
        open_source(uri)
    assert "python3-opencv" in caught.value.hint


READ = """
import json, sys, time
from edgekit_runtime import SourceState, open_source
seen, states = [], []
with open_source(sys.argv[1]) as source:
    end = time.monotonic() + 20
    while len(seen) < 25 and time.monotonic() < end:
        frame = source.read(0.05)
        if frame is not None:
            seen.append([*frame.image.shape, frame.index, int(frame.image[..., 2].mean())])
        elif source.state is not SourceState.RUNNING:
            states.append([source.state.value, source.reason])
    print(json.dumps({"seen": seen, "states": states, "live": source.live, "fps": source.fps}))
"""


def test_a_pipeline_is_read_and_started_again_when_it_ends() -> None:
    """With the system's Python, as on a Jetson: its OpenCV, and this package beside it."""
    probe = "import cv2; assert cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)"
    if not Path(SYSTEM_PYTHON).exists() or subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True).returncode:
        pytest.skip("no OpenCV with GStreamer here (apt install python3-opencv gstreamer1.0-plugins-base)")
    uri = "gst:videotestsrc num-buffers=15 pattern=red is-live=true ! video/x-raw,width=320,height=240,framerate=30/1"
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", READ, uri], capture_output=True, env={"PYTHONPATH": str(PACKAGES)}, timeout=60, check=True
    )
    told = json.loads(done.stdout)
    assert all(row[:3] == [240, 320, 3] and row[4] > 200 for row in told["seen"])
    assert [row[3] for row in told["seen"]] == sorted({row[3] for row in told["seen"]})
    assert told["states"][0] == ["retrying", "the stream has ended; trying again in 0.2 s"]
    assert (told["live"], told["fps"]) == (True, 30)
