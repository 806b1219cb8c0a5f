"""The bundle that comes with edgekit as an expert over real video, against the runtime's own answers."""

from __future__ import annotations

import shutil
import threading
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundles import OPENVINO, make_bundle

from edgekit.cli import main
from edgekit.locate import DEFAULT_BUNDLE
from edgekit_experts.dataset import Dataset
from edgekit_experts.expert import Batch
from edgekit_experts.learned.bundle import BundleModel
from edgekit_experts.taxonomies import DRONESCAPES
from edgekit_experts.video import open_video
from edgekit_runtime.errors import BundleError, ExpertError
from edgekit_runtime.modality import Kind
from edgekit_runtime.model import load


@pytest.fixture(scope="module")
def frames(real: Path) -> np.ndarray:
    reader = open_video(str(real / "videos" / "udacity_solidWhiteRight.mp4"))
    return np.stack([frame.rgb for frame, _ in zip(reader.read(100), range(4), strict=False)])


def test_labels_are_those_of_the_runtime_at_the_frames_size(frames: np.ndarray) -> None:
    expert = BundleModel(str(DEFAULT_BUNDLE))
    assert expert.produces({}).taxonomy == DRONESCAPES
    labels = expert.compute(Batch(frames, {}, 100))
    assert (labels.shape, labels.dtype) == ((4, 540, 960, 1), np.uint8)
    with load(DEFAULT_BUNDLE) as model:
        for frame, found in zip(frames, labels, strict=True):
            expected = model(np.ascontiguousarray(frame[..., ::-1])).labels
            assert expected is not None
            assert len(np.unique(expected)) > 1
            grown = cv2.resize(expected, (960, 540), interpolation=cv2.INTER_NEAREST)
            np.testing.assert_array_equal(found[..., 0], grown)


def test_threads_share_it(frames: np.ndarray) -> None:
    expert = BundleModel(str(DEFAULT_BUNDLE))
    expert.produces({})
    alone = expert.compute(Batch(frames, {}, 0))
    wrong: list[int] = []

    def work(number: int) -> None:
        answers = (expert.compute(Batch(frames[number : number + 1], {}, number)) for _ in range(10))
        wrong.extend(number for answer in answers if not np.array_equal(answer[0], alone[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_depth_is_that_of_the_runtime_in_its_unit(tmp_path: Path) -> None:
    frame = cv2.resize(np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8), (192, 128))
    path = make_bundle(tmp_path / "tiny", 64, 96, variants=(OPENVINO,), depth=True)
    expert = BundleModel(str(path), output="depth")
    modality = expert.produces({})
    assert (modality.kind, modality.dtype, modality.unit) == (Kind.DEPTH, "float16", "relative")
    depth = expert.compute(Batch(frame[None], {}, 0))
    assert (depth.shape, depth.dtype) == ((1, 128, 192, 1), np.float16)
    with load(path) as model:
        expected = model(np.ascontiguousarray(frame[..., ::-1])).depth
    assert expected is not None
    np.testing.assert_allclose(depth[0, ..., 0], cv2.resize(expected, (192, 128)), rtol=1e-3)


def test_extract_runs_it_and_a_folder_is_as_good_as_a_file(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    with zipfile.ZipFile(DEFAULT_BUNDLE) as packed:
        packed.extractall(folder)
    config = tmp_path / "experts.toml"
    config.write_text(f'[student]\nexpert = "bundle"\npath = "{folder}"\n', encoding="utf-8")
    assert main(["extract", str(clip), "-o", str(tmp_path / "data"), "-c", str(config), "--workers", "2"]) == 0
    video = Dataset.open(tmp_path / "data").video("clip")
    assert video.done("student").all()
    assert video.arrays["student"].declaration.modality.taxonomy == DRONESCAPES
    assert BundleModel(str(folder)).identity == BundleModel(str(DEFAULT_BUNDLE)).identity


def test_what_is_altered_missing_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExpertError, match="no depth") as caught:
        BundleModel(str(DEFAULT_BUNDLE), output="depth").produces({})
    assert "labels" in caught.value.hint
    with pytest.raises(ExpertError, match="output 'labelz'"):
        BundleModel("x.edgekit", output="labelz")
    altered = tmp_path / "altered.edgekit"
    shutil.copy(DEFAULT_BUNDLE, altered)
    data = bytearray(altered.read_bytes())
    data[len(data) // 2] ^= 1
    altered.write_bytes(data)
    with pytest.raises(BundleError):
        BundleModel(str(altered)).produces({})
