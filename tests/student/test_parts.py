"""Masks, encodings, losses, metrics, batches, augmentation: each as it is promised."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit_runtime.modality import Kind, Modality, Taxonomy
from edgekit_student.augment import augment, paste_classes, pasted
from edgekit_student.batches import batch_indices, drawn_by_class
from edgekit_student.encoding import decode, encode, encode_into, log_statistics, mirrored
from edgekit_student.losses import class_weights, modality_loss, soft_cross_entropy
from edgekit_student.masking import sample_masks
from edgekit_student.metrics import class_iou, confusion, constant_miou, doubts, miou, pixel_accuracy
from edgekit_student.samples import PRESENT
from edgekit_student.settings import Augmentation

SCENE = Taxonomy("scene", ("ground", "sky", "thing"), ((0, 255, 0), (0, 255, 255), (255, 0, 0)))
LABELS = Modality("labels", Kind.LABELS, taxonomy=SCENE)


def test_masks_always_leave_something_visible() -> None:
    masks = sample_masks(2000, ["a", "b", "c"], hide=0.9, generator=torch.Generator().manual_seed(0))
    assert masks.any(dim=1).all()
    assert 0.1 < masks.float().mean() < 0.5


def test_a_modality_that_must_be_seen_is_never_masked() -> None:
    masks = sample_masks(200, ["a", "b"], hide=0.9, always_visible=["b"], generator=torch.Generator().manual_seed(0))
    assert masks[:, 1].all()
    assert not masks[:, 0].all()


def test_labels_become_one_channel_per_class_and_ignored_pixels_none() -> None:
    ids = torch.tensor([[[[0], [2]], [[255], [1]]]], dtype=torch.uint8)
    encoded = encode(LABELS, ids, {})
    assert encoded.values[0, :, 0, 1].tolist() == [0, 0, 1]
    assert encoded.values[0, :, 1, 0].tolist() == [0, 0, 0]
    assert encoded.valid[0, 0].tolist() == [[True, True], [False, True]]


def test_holes_in_depth_are_zero_and_do_not_count() -> None:
    depth = Modality("depth", Kind.DEPTH, dtype="float16")
    array = torch.tensor([[[[10.0], [float("nan")]]]])
    statistics = {"depth": {"mean": [6.0], "std": [2.0]}}
    encoded = encode(depth, array, statistics)
    assert encoded.values.flatten().tolist() == [2.0, 0.0]
    assert encoded.valid.flatten().tolist() == [True, False]
    assert decode(depth, encoded.values, statistics).flatten().tolist() == [10.0, 6.0]
    assert modality_loss(depth, torch.full((1, 1, 1, 2), 3.0), encoded).item() == 1.0


def test_depth_in_metres_is_standardised_as_its_logarithm_and_never_negative() -> None:
    depth = Modality("depth", Kind.DEPTH, dtype="float16", unit="m")
    logarithms = torch.from_numpy(np.random.default_rng(0).normal(3.0, 0.8, 100_000))
    drawn = logarithms.exp()
    found = log_statistics(drawn.mean().item(), drawn.std().item())
    assert found["log_mean"] == pytest.approx([3.0], abs=0.02)
    assert found["log_std"] == pytest.approx([0.8], abs=0.02)
    statistics = {"depth": {"mean": [28.0], "std": [26.0], **found}}
    encoded = encode(depth, torch.tensor([[[[2.0], [200.0], [0.0], [-1.0], [float("nan")]]]]), statistics)
    assert encoded.valid.flatten().tolist() == [True, True, False, False, False]
    assert encoded.values[..., 2:].flatten().tolist() == [0, 0, 0]
    assert decode(depth, encoded.values, statistics)[..., :2].flatten().tolist() == pytest.approx([2, 200], rel=1e-4)
    assert (decode(depth, torch.tensor([[[[-9.0, 0.0, 4.0]]]]), statistics) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("stored", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("logarithm", [{}, {"log_mean": [0.3], "log_std": [0.9]}])
def test_what_is_written_into_a_part_of_more_is_what_is_encoded(
    kind: Kind, stored: str, dtype: torch.dtype, logarithm: dict[str, list[float]]
) -> None:
    channels = {Kind.IMAGE: 3, Kind.NORMALS: 3, Kind.FLOW: 2}.get(kind, 1)
    modality = LABELS if kind is Kind.LABELS else Modality("x", kind, channels=channels, dtype=stored)
    rng = np.random.default_rng(0)
    array = rng.integers(0, 5, (2, 8, 6, channels)).astype("uint8" if kind is Kind.LABELS else stored)
    if kind is Kind.LABELS:
        array[0, :2] = 255
    elif stored != "uint8":
        array[0, 1, :, 0], array[1, 2, :, -1] = np.nan, np.inf
    statistics = {"x": {"mean": [1.3] * channels, "std": [0.7] * channels, **logarithm}}
    before = array.copy()
    more = torch.full((2, 8, 6, modality.features + 2), 7.0, dtype=dtype)
    encode_into(modality, torch.from_numpy(array), statistics, more[..., 1:-1])
    expected = encode(modality, torch.from_numpy(array), statistics).values.to(dtype)
    assert torch.equal(more[..., 1:-1].permute(0, 3, 1, 2), expected)
    assert (more[..., [0, -1]] == 7).all()
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    ("kind", "channels", "stored"),
    [
        (Kind.FLOW, 2, "float16"),
        (Kind.FLOW, 2, "float32"),
        (Kind.NORMALS, 3, "float16"),
        (Kind.DEPTH, 1, "float16"),
        (Kind.IMAGE, 3, "uint8"),
        (Kind.IMAGE, 11, "uint8"),
        (Kind.MASK, 1, "uint8"),
    ],
)
def test_pictures_are_mirrored_as_tensors_are(kind: Kind, channels: int, stored: str) -> None:
    modality = Modality("x", kind, channels=channels, dtype=stored)
    array = np.random.default_rng(0).integers(0, 200, (8, 6, channels)).astype(stored)
    if stored != "uint8":
        array[2, 3] = np.nan
    settings = Augmentation(**{**PLAIN, "mirror": True})
    seen = [augment({"x": array}, {"x": modality}, settings, np.random.default_rng(seed))["x"] for seed in range(6)]
    turned = mirrored(modality, torch.from_numpy(array)).numpy()
    kinds = [np.array_equal(each, turned, equal_nan=stored != "uint8") for each in seen]
    assert any(kinds)
    for each, flipped in zip(seen, kinds, strict=True):
        np.testing.assert_array_equal(each, turned if flipped else array)
        assert each.dtype == array.dtype


@pytest.mark.parametrize("kind", list(Kind))
def test_the_loss_of_each_kind_falls_to_its_least_at_the_truth(kind: Kind) -> None:
    torch.manual_seed(0)
    if kind is Kind.LABELS:
        modality, array = LABELS, torch.randint(0, 3, (1, 8, 8, 1), dtype=torch.uint8)
        perfect = 50 * (encode(modality, array, {}).values - 0.5)
    else:
        channels = {Kind.IMAGE: 3, Kind.NORMALS: 3, Kind.FLOW: 2}.get(kind, 1)
        modality = Modality("x", kind, channels=channels)
        array = torch.randint(0, 2, (1, 8, 8, channels)).float() + 0.5 * (kind is Kind.NORMALS)
        array = array * 255 if kind is Kind.EDGES else array
        statistics = {"x": {"mean": [0.0] * channels, "std": [1.0] * channels}}
        values = encode(modality, array, statistics).values
        perfect = 50 * (values - 0.5) if kind in (Kind.EDGES, Kind.MASK) else values
    statistics = {"x": {"mean": [0.0] * modality.channels, "std": [1.0] * modality.channels}}
    target = encode(modality, array, statistics)
    best = modality_loss(modality, perfect, target)
    worse = modality_loss(modality, perfect + 3 * torch.randn_like(perfect) * perfect.abs().amax(), target)
    assert best < 0.01
    assert worse > best + 0.1


def test_class_weights_raise_rare_classes_and_keep_the_mean() -> None:
    seen = torch.tensor([900.0, 90.0, 10.0, 0.0])
    share = seen / seen.sum()
    even, root, full = (class_weights(seen, balance) for balance in (0.0, 0.5, 1.0))
    assert even.tolist() == [1, 1, 1, 1]
    assert root[2] / root[0] == pytest.approx(90**0.5)
    assert (full * share)[:3].tolist() == pytest.approx([1 / 3] * 3)
    for weights in (even, root, full):
        assert (weights * share).sum() == pytest.approx(1)
        assert torch.isfinite(weights).all()


def test_a_weighted_class_counts_more_in_both_losses() -> None:
    ids = torch.tensor([[[[0], [1]]]], dtype=torch.uint8)
    target = encode(LABELS, ids, {})
    sure_of_0 = torch.tensor([9.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    weights = torch.tensor([0.5, 2.0, 1.0])
    for loss in (
        lambda w: modality_loss(LABELS, sure_of_0, target, w),
        lambda w: soft_cross_entropy(sure_of_0, target.values, target.valid.float(), 1.0, w),
    ):
        assert loss(weights) / loss(None) == pytest.approx(2, rel=1e-3)


def test_miou_counts_classes_of_the_target_only_and_ignores_what_is_to_be_ignored() -> None:
    target = np.array([[0, 0, 1, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 2]], np.uint8)
    table = confusion(prediction, target, classes=3, ignore=255)
    assert table.sum() == 3
    assert class_iou(table)[:2].tolist() == [0.5, 0.5]
    assert np.isnan(class_iou(table)[2])
    assert miou(table) == 0.5
    assert pixel_accuracy(table) == pytest.approx(2 / 3)


def test_a_prediction_outside_the_classes_is_an_error_of_its_target() -> None:
    table = confusion(np.array([9, 0]), np.array([0, 0]), classes=2, ignore=255)
    assert pixel_accuracy(table) == 0.5
    assert class_iou(table)[0] == 0.5


def test_an_epoch_shows_every_sample_once_and_ranks_share_it() -> None:
    seen = [i for number in range(10) for i in batch_indices(20, number, 2, 7)]
    assert sorted(seen) == list(range(20))
    assert batch_indices(20, 3, 2, seed=7) == batch_indices(20, 3, 2, seed=7)


def test_augmentation_moves_all_modalities_alike() -> None:
    rng = np.random.default_rng(1)
    ids = np.repeat(np.repeat(rng.integers(0, 3, (8, 12, 1)), 16, 0), 16, 1).astype(np.uint8)
    rgb = np.repeat(ids * 100, 3, axis=-1)
    modalities = {"rgb": Modality("rgb", Kind.IMAGE, channels=3), "labels": LABELS}
    settings = Augmentation(crop=(64, 96), brightness=0, contrast=0, saturation=0)
    for seed in range(5):
        out = augment({"rgb": rgb, "labels": ids}, modalities, settings, np.random.default_rng(seed))
        assert out["rgb"].shape == (64, 96, 3)
        agreement = (np.rint(out["rgb"][..., :1] / 100).astype(np.uint8) == out["labels"]).mean()
        assert agreement > 0.97


PLAIN = {"mirror": False, "scale": (1.0, 1.0), "brightness": 0, "contrast": 0, "saturation": 0}


def recoloured(rgb: np.ndarray, seed: int, **settings: object) -> np.ndarray:
    modalities = {"rgb": Modality("rgb", Kind.IMAGE, channels=3)}
    chosen = Augmentation(**{**PLAIN, **settings})  # type: ignore[arg-type]
    return augment({"rgb": rgb}, modalities, chosen, np.random.default_rng(seed))["rgb"]


def test_hue_turns_colours_and_leaves_grey_alone() -> None:
    grey = np.full((8, 8, 3), 120, np.uint8)
    red = np.full((8, 8, 3), (140, 90, 90), np.uint8)
    turned = [recoloured(red, seed, hue=60) for seed in range(8)]
    assert all(np.abs(recoloured(grey, seed, hue=60).astype(int) - 120).max() <= 1 for seed in range(8))
    assert len({tuple(picture[0, 0]) for picture in turned}) == 8
    for picture in turned:  # as light, and as far from grey as before
        pixel, before = picture[0, 0].astype(float), red[0, 0].astype(float)
        assert pixel.sum() == pytest.approx(320, abs=2)
        assert np.linalg.norm(pixel - 320 / 3) == pytest.approx(np.linalg.norm(before - 320 / 3), abs=2)


def test_blur_and_noise_are_of_rgb_alone() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(60, 190, (48, 64, 3), np.uint8)
    ids = rng.integers(0, 3, (48, 64, 1), np.uint8)
    modalities = {"rgb": Modality("rgb", Kind.IMAGE, channels=3), "labels": LABELS}
    noisy = augment({"rgb": rgb, "labels": ids}, modalities, Augmentation(**PLAIN, noise=30), rng)
    assert np.array_equal(noisy["labels"], ids)
    assert 1 < np.abs(noisy["rgb"].astype(int) - rgb).mean() < 30
    roughness = [np.abs(np.diff(recoloured(rgb, seed, blur=3).astype(int), axis=1)).mean() for seed in range(12)]
    assert min(roughness) < 0.5 * max(roughness), "some are blurred"
    assert max(roughness) == np.abs(np.diff(rgb.astype(int), axis=1)).mean(), "others are not"


def test_pasted_classes_come_with_all_that_belongs_to_them() -> None:
    rng = np.random.default_rng(0)
    there = {"rgb": np.full((32, 48, 3), 10, np.uint8), "labels": np.zeros((32, 48, 1), np.uint8)}
    ids = np.repeat(np.repeat(rng.integers(0, 3, (4, 6, 1), np.uint8), 8, 0), 8, 1)
    other = {"rgb": np.repeat(ids * 50 + 60, 3, axis=-1), "labels": ids + 1}
    coarse = np.zeros((8, 12, 2), np.uint8)
    there["soft"], other["soft"] = coarse, np.repeat(ids[2::4, 2::4], 2, axis=-1) + 100
    there["soft" + PRESENT], other["soft" + PRESENT] = np.asarray(True), np.asarray(False)
    mixed = paste_classes(there, other, ids[..., 0], rng)
    fresh = mixed["labels"][..., 0] > 0
    (chosen,) = np.unique(ids[..., 0][fresh])  # one of three: half, rounded down
    assert np.array_equal(fresh, ids[..., 0] == chosen)
    assert (mixed["rgb"][fresh] == 50 * chosen + 60).all()
    assert (mixed["rgb"][~fresh] == 10).all()
    assert np.array_equal(mixed["soft"][..., 0] > 0, ids[2::4, 2::4, 0] == chosen)
    assert not mixed["soft" + PRESENT]


def test_a_share_of_a_batch_is_pasted_into() -> None:
    views = [{"labels": np.full((8, 8, 1), 2 * index, np.uint8)} for index in range(40)]
    views = [{"labels": np.concatenate([view["labels"], view["labels"] + 1], axis=1)} for view in views]
    mixed = pasted(views, lambda view: view["labels"][..., 0], 0.5, np.random.default_rng(0))
    changed = sum(not np.array_equal(a["labels"], b["labels"]) for a, b in zip(views, mixed, strict=True))
    assert 10 < changed < 30
    assert pasted(views, lambda view: view["labels"][..., 0], 0.0, np.random.default_rng(0)) == views


def test_pixels_of_no_certainty_cost_nothing() -> None:
    target = encode(LABELS, torch.tensor([[[[0], [1]]]], dtype=torch.uint8), {})
    right_left = torch.tensor([[[[9.0, 9.0]], [[0.0, 0.0]], [[0.0, 0.0]]]])  # says 0 twice: the second is wrong
    sure_of_left = torch.tensor([[[[1.0, 0.0]]]])
    assert modality_loss(LABELS, right_left, target, None, sure_of_left) < 0.01
    assert modality_loss(LABELS, right_left, target) > 4


def test_a_mirrored_flow_points_the_other_way() -> None:
    flow = np.ones((32, 32, 2), np.float32)
    modalities = {"flow": Modality("flow", Kind.FLOW, channels=2, dtype="float32")}
    settings = Augmentation(crop=None, scale=(2.0, 2.0))
    signs = {
        tuple(np.sign(augment({"flow": flow}, modalities, settings, np.random.default_rng(seed))["flow"][0, 0]))
        for seed in range(12)
    }
    assert signs == {(1, 1), (-1, 1)}
    doubled = augment({"flow": flow}, modalities, settings, np.random.default_rng(0))["flow"]
    assert np.allclose(np.abs(doubled), 2.0)


def test_a_model_that_has_learnt_little_is_doubted_in_words() -> None:
    names = ("ground", "sky", "thing")
    good = np.array([[90, 5, 5, 0], [5, 45, 0, 0], [5, 0, 45, 0]])
    assert doubts(good, names, "the labels") == ()
    # Twice as much ground as sky and thing: "ground" everywhere has an IoU of a half in one of three classes.
    assert constant_miou(good) == pytest.approx(1 / 6)
    poor = np.array([[60, 20, 20, 0], [25, 15, 10, 0], [25, 10, 15, 0]])
    (doubt,) = doubts(poor, names, "the labels")
    assert doubt == (
        f"its mIoU against the labels is only {100 * miou(poor):.1f} %, one class everywhere would have 16.7 %"
    )
    constant = np.array([[100, 0, 0, 0], [50, 0, 0, 0], [49, 1, 0, 0]])
    assert [doubt.split(" for ")[0] for doubt in doubts(constant, names, "the labels")][1] == "it answers 'ground'"
    # Against its own answers in another form, only what it answers counts.
    assert doubts(poor, names, "", told_apart=False) == ()
    assert len(doubts(constant, names, "", told_apart=False)) == 1


def test_frames_drawn_for_a_class_show_rare_ones_as_often_as_common_ones() -> None:
    areas = np.zeros((50, 3))
    areas[:, 0] = 0.9
    areas[7, 1], areas[9, 1] = 0.1, 0.3  # class 1 is in two frames, class 2 in none
    rng = np.random.default_rng(0)
    drawn = drawn_by_class([0] * 4000, areas, 1.0, rng)
    counts = np.bincount(drawn, minlength=50)
    assert abs(counts[9] / 4000 - 0.75 / 2) < 0.05
    assert abs(counts[7] / 4000 - 0.25 / 2) < 0.05
    assert counts.min() > 0
    half = drawn_by_class([3] * 4000, areas, 0.5, rng)
    assert abs(np.mean(np.array(half) == 3) - 0.5) < 0.05
    assert drawn_by_class([1, 2, 3], areas, 0.0, rng) == [1, 2, 3]
