"""The reader: random access, what becomes of missing modalities, workers, sizes, and statistics that are kept."""

from __future__ import annotations

import json
import pickle
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from edgekit_experts.dataset import Dataset, VideoInfo
from edgekit_experts.dataset.statistics import Statistics, pooled, video_statistics
from edgekit_runtime.errors import DataError, UsageError
from edgekit_runtime.modality import Kind, Modality, Taxonomy
from edgekit_student.batches import collate
from edgekit_student.distill import distill
from edgekit_student.encoding import encode
from edgekit_student.masking import sample_masks
from edgekit_student.phg_mae import load_phg_mae
from edgekit_student.samples import PRESENT, FrameRef, ModalityDataset
from edgekit_student.settings import DistillSettings, TrainSettings, read_settings
from edgekit_student.teaching import EnsembleTeacher
from edgekit_student.train import reconstruction_loss, train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::UserWarning:lightning")

SCENE = Taxonomy("scene", ("ground", "sky"), ((0, 255, 0), (0, 255, 255)))
RGB = Modality("rgb", Kind.IMAGE, 3)
DEPTH = Modality("depth", Kind.DEPTH, dtype="float16", unit="m")
EDGES = Modality("edges", Kind.EDGES)
FLOW = Modality("flow", Kind.FLOW, 2, dtype="float32")
VOTE = Modality("vote", Kind.LABELS, taxonomy=SCENE)
SIZES = {"first": (64, 96), "second": (48, 64)}
FRAMES = 8
NAMES = ["rgb", "depth", "edges", "vote"]


def content(modality: Modality, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    top = 2 if modality.taxonomy else 256
    array = rng.integers(0, top, (FRAMES, *size, modality.channels))
    return (array / 8 if modality.dtype.startswith("float") else array).astype(modality.dtype)


@pytest.fixture
def holes(tmp_path: Path) -> Dataset:
    """Two videos of 8 frames. `first` lacks edges from frame 6 on and rgb in frame 0; `second` has no depth at all,
    and only frames 0 to 3 of anything.
    """
    data = Dataset.create(tmp_path / "holes")
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
        video = data.add_video(name, VideoInfo(FRAMES, size, 10.0, "train", {"uri": name, "fingerprint": name}))
        for modality in (RGB, DEPTH, EDGES, FLOW, VOTE):
            if (name, modality) == ("second", DEPTH):
                continue
            video.declare(modality, expert="made by hand")
            start = 1 if (name, modality) == ("first", RGB) else 0
            stop = 4 if name == "second" else 6 if modality is EDGES else FRAMES
            video.write(modality.name, start, content(modality, size, rng)[start:stop])
    return data


def test_a_split_or_a_policy_that_is_none_is_refused_by_name(holes: Dataset) -> None:
    with pytest.raises(DataError, match="No video is in the split 'foo'") as caught:
        ModalityDataset(holes, ["vote"], split="foo")
    assert "train" in str(caught.value.hint)
    with pytest.raises(UsageError, match="missing = 'guess' is no policy"):
        ModalityDataset(holes, ["vote"], missing="guess")  # type: ignore[arg-type]


def test_a_sample_is_what_the_store_holds_in_any_order(holes: Dataset) -> None:
    samples = ModalityDataset(holes, ["vote", "depth"], split="train")
    assert len(samples) == FRAMES
    assert samples.frames[5] == FrameRef("first", 5)
    assert samples.frame_size == SIZES["first"]
    for index in (5, 0, -1):
        sample = samples[index]
        video, frame = holes.video("first"), samples.frames[index].index
        assert list(sample) == ["vote", "depth", "vote" + PRESENT, "depth" + PRESENT]
        np.testing.assert_array_equal(sample["depth"], video.read("depth", frame))
        np.testing.assert_array_equal(sample["vote"], video.read("vote", frame))
    with pytest.raises(IndexError):
        samples[FRAMES]
    assert sum(1 for _ in samples) == FRAMES


def test_raise_names_the_first_gap(holes: Dataset) -> None:
    with pytest.raises(DataError, match="Frame 0 of rgb is missing in first"):
        ModalityDataset(holes, ["vote", "rgb", "edges"], missing="raise")
    with pytest.raises(DataError, match="Frame 6 of edges is missing in first"):
        ModalityDataset(holes, ["edges", "vote"], missing="raise")
    with pytest.raises(DataError, match="Frame 0 of depth is missing in second"):
        ModalityDataset(holes, ["vote", "depth"], missing="raise")


def test_drop_leaves_out_what_is_incomplete(holes: Dataset) -> None:
    assert ModalityDataset(holes, NAMES).frames == tuple(FrameRef("first", index) for index in range(1, 6))
    both = ModalityDataset(holes, ["rgb", "vote"])
    assert [ref.video for ref in both.frames] == ["first"] * 7 + ["second"] * 4
    holes.add_video("third", VideoInfo(3, (48, 64), 10.0, "val")).declare(RGB, expert="none yet")
    with pytest.raises(DataError, match="No frame in the split 'val'"):
        ModalityDataset(holes, ["rgb"], split="val")


def test_mask_keeps_frames_and_says_what_they_lack(holes: Dataset) -> None:
    samples = ModalityDataset(holes, NAMES, missing="mask")
    assert [(ref.video, ref.index) for ref in samples.frames] == [
        *(("first", index) for index in range(8)),
        *(("second", index) for index in range(4)),
    ]
    assert {name: bool(samples[0][name + PRESENT]) for name in NAMES} == {
        "rgb": False, "depth": True, "edges": True, "vote": True,
    }  # fmt: skip
    assert not samples[0]["rgb"].any()
    last = samples[11]
    assert last["depth"].shape == (*SIZES["second"], 1)
    assert last["depth"].dtype == np.float16
    assert np.isnan(last["depth"]).all()
    assert [bool(last[name + PRESENT]) for name in NAMES] == [True, False, True, True]
    seen = ModalityDataset(holes, NAMES, missing="mask", one_of=[["rgb", "depth"], ["edges"]])
    assert [ref.index for ref in seen.frames if ref.video == "first"] == [0, 1, 2, 3, 4, 5]


def test_a_label_that_is_not_there_is_ignored_and_encodes_as_no_value(holes: Dataset) -> None:
    holes.video("first").declare(Modality("late", Kind.LABELS, taxonomy=SCENE), expert="made by hand")
    holes.video("first").write("late", 3, np.zeros((1, *SIZES["first"], 1), np.uint8))
    sample = ModalityDataset(holes, ["depth", "late"], missing="mask")[0]
    assert (sample["late"] == SCENE.ignore).all()
    encoded = encode(holes.video("first").modalities["late"], torch.from_numpy(sample["late"])[None], {})
    assert not encoded.values.any()
    assert not encoded.valid.any()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_the_same_in_every_epoch(holes: Dataset, tmp_path: Path, start: str) -> None:
    script = Path(__file__).with_name("workers.py")
    command = [sys.executable, "-W", "error", script, tmp_path / "holes", start]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["epoch 0: [5, 5, 2]", "epoch 1: [5, 5, 2]"]


def test_a_pickled_reader_carries_no_frame_and_opens_the_data_set_again(holes: Dataset) -> None:
    samples = ModalityDataset(holes, ["vote"], cache_bytes=1 << 20)
    before = len(pickle.dumps(samples))
    frames = list(samples)
    payload = pickle.dumps(samples)
    assert len(payload) == before
    again = pickle.loads(payload)
    assert all(np.array_equal(a["vote"], b["vote"]) for a, b in zip(again, frames, strict=True))


def test_videos_of_different_sizes_make_a_batch_only_at_one_size(holes: Dataset) -> None:
    own = ModalityDataset(holes, ["rgb", "flow", "vote"])
    shapes = {ref.video: own[index]["rgb"].shape[:2] for index, ref in enumerate(own.frames)}
    assert shapes == SIZES
    with pytest.raises(DataError, match="different sizes"):
        collate([own[0], own[-1]])
    one = ModalityDataset(holes, ["rgb", "flow", "vote"], size=(24, 32))
    batch = collate([one[0], one[-1]])
    assert batch["rgb"].shape == (2, 24, 32, 3)
    # `second` shrinks to half: so do its vectors, and no class is made up between two.
    stored = holes.video("second")
    halved = stored.read("flow", 3)[::2, ::2] / 2
    np.testing.assert_allclose(one[-1]["flow"], halved)
    np.testing.assert_array_equal(one[-1]["vote"], stored.read("vote", 3)[::2, ::2])


def test_what_is_asked_for_must_be_there(holes: Dataset) -> None:
    with pytest.raises(UsageError, match="No modality"):
        ModalityDataset(holes, [])
    with pytest.raises(DataError, match="no modality 'dept'"):
        ModalityDataset(holes, ["dept"])


def test_statistics_are_those_of_all_frames_of_the_split(holes: Dataset) -> None:
    samples = ModalityDataset(holes, ["rgb", "depth", "vote"], missing="mask")
    every = [holes.video("first").read_many("rgb", 1, 8), holes.video("second").read_many("rgb", 0, 4)]
    pixels = np.concatenate([frames[:, ::4, ::4].reshape(-1, 3) for frames in every]).astype(float)
    table = samples.statistics()
    np.testing.assert_allclose(table["rgb"]["mean"], pixels.mean(axis=0))
    np.testing.assert_allclose(table["rgb"]["std"], pixels.std(axis=0))
    assert table.keys() == {"rgb", "depth"}
    every = [holes.video("first").read_many("vote", 0, 8), holes.video("second").read_many("vote", 0, 4)]
    labels = np.concatenate([frames[:, ::4, ::4].ravel() for frames in every])
    assert samples.frequencies("vote").tolist() == np.bincount(labels).tolist()


def test_statistics_are_kept_until_a_frame_changes(holes: Dataset, tmp_path: Path) -> None:
    root = tmp_path / "holes"
    content_hash = holes.content_hash()
    first = ModalityDataset(holes, ["depth"]).statistics()
    (kept,) = (root / "first" / "depth" / "kept").iterdir()
    # Nothing but the kept statistics can answer when the frames cannot be decoded.
    shard = root / "first" / "depth" / "c.0.0.0.0"
    intact = shard.read_bytes()
    shard.write_bytes(b"damaged")
    assert ModalityDataset(Dataset.open(root), ["depth"]).statistics() == first
    shard.write_bytes(intact)
    for text in ("", "[]", '{"of": 1}', kept.read_text(encoding="utf-8").replace('"pixels": ', '"pixels": NaN, "x": ')):
        kept.write_text(text, encoding="utf-8")
        assert ModalityDataset(Dataset.open(root), ["depth"]).statistics() == first
        assert json.loads(kept.read_text(encoding="utf-8"))["value"]["pixels"] > 0
    assert Dataset.open(root).content_hash() == content_hash
    assert sorted(name for name, _ in zarr.open_group(root / "first", mode="r").members()) == [
        "depth", "edges", "flow", "rgb", "vote",
    ]  # fmt: skip
    again = Dataset.open(root)
    again.video("first").declare(DEPTH, expert="made by hand", params={"gain": 2})
    again.video("first").write("depth", 0, np.full((2, *SIZES["first"], 1), 7, np.float16))
    assert ModalityDataset(Dataset.open(root), ["depth"]).statistics()["depth"]["mean"] == [7.0]


def test_a_data_set_that_cannot_be_written_is_counted_each_time(holes: Dataset, tmp_path: Path) -> None:
    samples = ModalityDataset(holes, ["rgb"])
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited[1]))
    try:
        counted = samples.statistics()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert not any((tmp_path / "holes").rglob("kept/*"))
    assert samples.statistics() == counted
    assert any((tmp_path / "holes").rglob("kept/*"))


def test_statistics_of_parts_pool_to_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(mean, mean, (count, 2)) for mean, count in ((1, 50), (3, 200), (9, 10))]
    whole = np.concatenate(parts)
    found = pooled(
        Statistics(len(part), tuple(part.mean(axis=0).tolist()), tuple(part.var(axis=0).tolist())) for part in parts
    )
    np.testing.assert_allclose(found.mean, whole.mean(axis=0))
    np.testing.assert_allclose(found.variance, whole.var(axis=0))
    assert pooled([Statistics(), found]) == pooled([found])
    assert not pooled([]).pixels


def test_a_modality_without_a_value_has_no_statistics(holes: Dataset) -> None:
    void = Modality("void", Kind.DEPTH, dtype="float16")
    holes.video("first").declare(void, expert="made by hand")
    assert not video_statistics(holes.video("first"), "void").pixels
    holes.video("first").write("void", 0, np.full((2, *SIZES["first"], 1), np.nan, np.float16))
    with pytest.raises(DataError, match="no finite value"):
        ModalityDataset(holes, ["void"]).statistics()
    unknown = Modality("unknown", Kind.LABELS, taxonomy=SCENE)
    holes.video("first").declare(unknown, expert="made by hand")
    holes.video("first").write("unknown", 0, np.full((2, *SIZES["first"], 1), SCENE.ignore, np.uint8))
    with pytest.raises(DataError, match="knows no class"):
        ModalityDataset(holes, ["unknown"]).frequencies("unknown")


def test_the_page_about_reading_runs_as_it_stands(
    holes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[2] / "docs" / "reading.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(tmp_path / "holes")
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
    shapes = capsys.readouterr().out.splitlines()
    assert shapes[0] == "rgb (4, 48, 64, 3) [True, True, True, True]"


def test_what_is_not_there_is_never_visible() -> None:
    present = torch.tensor([[True, False, True], [False, True, False], [False, False, False]]).repeat(200, 1)
    masks = sample_masks(600, ["a", "b", "c"], hide=0.6, always_visible=["b"], present=present)
    assert not (masks & ~present).any()
    assert (masks.any(dim=1) == present.any(dim=1)).all()
    one = sample_masks(300, ["a", "b"], hide=0.9, present=torch.tensor([True, False]))
    assert one.tolist() == [[True, False]] * 300


def settings(kind: type, **more: object) -> TrainSettings | DistillSettings:
    table = {"network": "edge-150k", "optimisation__steps": 3, "optimisation__batch": 4}
    return read_settings(kind, None, **(table | more))


def test_phg_mae_and_student_learn_from_frames_with_gaps(holes: Dataset, tmp_path: Path) -> None:
    inputs = ("rgb", "depth", "edges")
    dropped = train(holes, tmp_path / "drop", settings(TrainSettings, inputs=inputs), device="cpu")
    assert dropped.config.provenance["frames"] == 5
    masked = train(holes, tmp_path / "mask", settings(TrainSettings, inputs=inputs, missing="mask"), device="cpu")
    assert masked.config.provenance["frames"] == 12
    assert all(value.isfinite().all() for value in masked.state_dict().values())
    with pytest.raises(DataError, match="Frame 0 of rgb is missing in first"):
        train(holes, tmp_path / "raise", settings(TrainSettings, inputs=inputs, missing="raise"), device="cpu")
    options = settings(DistillSettings, missing="mask", ensemble__members=2)
    teacher = EnsembleTeacher(load_phg_mae(tmp_path / "mask"), options.ensemble, parent="mask")
    taught: list[int] = []
    student = distill(
        teacher,
        holes,
        tmp_path / "student",
        options,
        device="cpu",
        on_teaching=lambda done, total: taught.append(total),
    )
    assert taught == [11] * 11, "every frame that has rgb, whatever else it lacks"
    assert all(value.isfinite().all() for value in student.state_dict().values())


def test_a_modality_that_is_not_there_is_neither_seen_nor_learnt(holes: Dataset, tmp_path: Path) -> None:
    options = settings(TrainSettings, inputs=("rgb", "depth", "edges"), missing="mask")
    model = train(holes, tmp_path / "run", options, device="cpu")
    samples = ModalityDataset(holes, NAMES, missing="mask", size=(48, 64))
    batch = collate([samples[0], samples[7], samples[11]])
    assert [batch[name + PRESENT].tolist() for name in NAMES] == [
        [False, True, True],
        [True, True, False],
        [True, False, True],
        [True, True, True],
    ]

    def loss(batch: dict[str, torch.Tensor]) -> float:
        present = torch.stack([batch[name + PRESENT] for name in ("rgb", "depth", "edges")], dim=1)
        visible = model.masks(3, torch.Generator().manual_seed(1), present=present)
        with torch.no_grad():
            return reconstruction_loss(model, model(batch, visible), batch, options, torch.ones(2)).item()

    expected = loss(batch)
    assert np.isfinite(expected)
    other = {name: tensor.clone() for name, tensor in batch.items()}
    other["rgb"][0], other["edges"][1], other["depth"][2] = 200, 100, 5.0
    assert loss(other) == expected
    other["edges"][0] = 100
    assert loss(other) != expected
