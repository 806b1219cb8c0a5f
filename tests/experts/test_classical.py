"""Experts that need no weights, against ground truth or against the slow and obvious way."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgekit_experts.classical.colour import Hsv, Rgb
from edgekit_experts.classical.edges import Canny, Gradients
from edgekit_experts.classical.features import KeyPoints
from edgekit_experts.classical.flow import DisFlow, FarnebackFlow
from edgekit_experts.classical.labels import LabelMap, MajorityVote, VoteAgreement, vote
from edgekit_experts.classical.normals import Normals, normals_from_depth, pinhole
from edgekit_experts.classical.softseg import GeneralisedBoundaries, Halftone, SoftSegmentation, Superpixels
from edgekit_experts.expert import Batch, Expert
from edgekit_experts.mapping import find_mapping, parse_mapping
from edgekit_experts.taxonomies import CAMVID, CITYSCAPES, TAXONOMIES, find_taxonomy
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality

RNG = np.random.default_rng(0)


def batch(frames: np.ndarray, **inputs: np.ndarray) -> Batch:
    return Batch(frames, inputs, 0)


@pytest.mark.parametrize(
    "expert",
    [
        Rgb(),
        Hsv(),
        Canny(),
        Gradients(),
        DisFlow(gap=2),
        DisFlow(gap=-1),
        FarnebackFlow(),
        SoftSegmentation(),
        GeneralisedBoundaries(),
        Superpixels(size=8),
        Halftone(),
        KeyPoints("sift"),
        KeyPoints("orb"),
    ],
    ids=lambda expert: type(expert).__name__,
)
def test_what_comes_out_is_what_was_declared(expert: Expert) -> None:
    before, after = expert.context
    frames = RNG.integers(0, 256, (before + 3 + after, 40, 56, 3), np.uint8)
    modality = expert.produces({})
    computed = expert.compute(batch(frames))
    assert computed.shape == (3, 40, 56, modality.channels)
    assert computed.dtype.name == modality.dtype


def test_hue_uses_the_whole_byte() -> None:
    frames = np.uint8([[[[255, 0, 0], [0, 0, 255], [128, 128, 128]]]])
    assert Hsv().compute(batch(frames))[0, 0].tolist() == [[0, 255, 255], [171, 255, 255], [0, 0, 128]]


def test_canny_finds_the_border_of_a_square() -> None:
    frames = np.zeros((1, 40, 40, 3), np.uint8)
    frames[0, 10:30, 10:30] = 255
    edges = Canny().compute(batch(frames))[0, ..., 0]
    assert set(np.unique(edges)) == {0, 255}
    assert not edges[15:25, 15:25].any()
    assert edges[20, 8:13].any()


def _read_flo(path: Path) -> np.ndarray:
    data = path.read_bytes()
    width, height = np.frombuffer(data[4:12], "<i4")
    return np.frombuffer(data[12:], "<f4").reshape(height, width, 2)


def test_dis_flow_on_middlebury(real: Path) -> None:
    folder = real / "flow"
    pair = [cv2.imread(str(folder / f"frame{n}.png"))[..., ::-1] for n in (10, 11)]
    truth = _read_flo(folder / "flow10.flo")
    known = (np.abs(truth) < 1e9).all(-1)
    errors = {}
    for name, expert in {"as it is": DisFlow(), "fast": DisFlow(preset="fast")}.items():
        flow = expert.compute(batch(np.stack(pair)))[0].astype(np.float32)
        errors[name] = float(np.linalg.norm(flow - truth, axis=-1)[known].mean())
    assert errors["as it is"] <= 0.25
    assert errors["fast"] <= 0.45


@pytest.mark.parametrize("sequence", ["blackswan", "car-shadow", "drift-straight"])
@pytest.mark.parametrize("expert", [DisFlow(), FarnebackFlow()], ids=lambda expert: expert.name)
def test_flow_carries_what_moves_from_one_frame_to_the_next(real: Path, sequence: str, expert: Expert) -> None:
    folder = real / "davis" / sequence
    paths = sorted((folder / "rgb").iterdir())[:8]
    frames = np.stack([cv2.imread(str(path))[..., ::-1] for path in paths])
    masks = [cv2.imread(str(folder / "mask" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE) for path in paths]
    flow = expert.compute(batch(frames)).astype(np.float32)
    rows, columns = np.indices(masks[0].shape, np.float32)

    def overlap(first: np.ndarray, second: np.ndarray) -> float:
        return float(((first > 127) & (second > 127)).sum() / ((first > 127) | (second > 127)).sum())

    still, carried = [], []
    for index in range(len(paths) - 1):
        following = cv2.remap(
            masks[index + 1], columns + flow[index, ..., 0], rows + flow[index, ..., 1], cv2.INTER_NEAREST
        )
        still.append(overlap(masks[index], masks[index + 1]))
        carried.append(overlap(masks[index], following))
    assert 1 - np.mean(carried) < 0.8 * (1 - np.mean(still)), "a fifth of what standing still gets wrong, at least"


def test_flow_spans_the_gap(real: Path) -> None:
    frames = sorted((real / "davis").rglob("*.jpg"))[:4]
    if len(frames) < 4:
        pytest.skip("no DAVIS frames")
    pictures = np.stack([cv2.imread(str(path))[..., ::-1] for path in frames])
    cv2.setNumThreads(1)
    long = DisFlow(gap=3).compute(batch(pictures))
    pair = DisFlow(gap=1).compute(batch(pictures[[0, 3]]))
    cv2.setNumThreads(-1)
    np.testing.assert_array_equal(long, pair)


def _svd_normal(points: np.ndarray) -> np.ndarray:
    return np.linalg.svd(points - points.mean(0))[2][2]


def test_normals_of_real_depth_are_those_of_a_plain_svd(real: Path) -> None:
    folder = real / "rgbd_7scenes"
    matrix = np.loadtxt(folder / "camera-intrinsics.txt")
    camera = (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
    angles = []
    for path in sorted(folder.glob("*.depth.png"))[::25]:
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        depth = np.where((raw == 0) | (raw == 65535), np.nan, raw / 1000).astype(np.float32)
        normals = normals_from_depth(depth, camera, 11)
        rows, columns = np.indices(depth.shape)
        points = np.stack(
            [(columns - camera[2]) / camera[0] * depth, (rows - camera[3]) / camera[1] * depth, depth], -1
        )
        for row, column in RNG.integers(0, (480, 640), (300, 2)):
            if np.isnan(normals[row, column, 0]):
                continue
            window = points[max(0, row - 5) : row + 6, max(0, column - 5) : column + 6].reshape(-1, 3)
            window = window[np.isfinite(window[:, 2])].astype(np.float64)
            cosine = abs(_svd_normal(window) @ normals[row, column])
            angles.append(np.degrees(np.arccos(min(1, cosine))))
            assert normals[row, column] @ points[row, column] < 0, "faces the camera"
    assert len(angles) > 700
    assert np.percentile(angles, 99.5) < 1.0
    assert np.median(angles) < 0.05


def test_normals_of_a_plane_far_away_are_exact() -> None:
    # A tilted plane 200 m away, where sums of squares cancel most.
    camera = pinhole(60, 80, 60)
    expected = np.array([0.3, -0.5, -0.8])
    expected /= np.linalg.norm(expected)
    rays = np.stack(
        np.broadcast_arrays((np.arange(80) - 39.5) / camera[0], ((np.arange(60) - 29.5) / camera[1])[:, None], 1.0), -1
    )
    depth = (expected @ [0, 0, 200.0]) / (rays @ expected)
    normals = normals_from_depth(depth.astype(np.float32), camera, 11)
    assert np.degrees(np.arccos(np.clip(normals @ expected, -1, 1))).max() < 0.2


def test_no_depth_no_normal() -> None:
    depth = np.full((1, 40, 40, 1), 5, np.float16)
    depth[0, :, 20:] = np.nan
    depth[0, :5, :5] = 0
    expert = Normals("d")
    modality = expert.produces({"d": Modality("d", Kind.DEPTH, dtype="float16")})
    normals = expert.compute(batch(np.zeros((1, 40, 40, 3), np.uint8), d=depth))
    assert normals.dtype.name == modality.dtype
    assert np.isnan(normals[0, :, 20:]).all()
    assert np.isnan(normals[0, :5, :5]).all()
    np.testing.assert_allclose(normals[0, 20, 10].astype(float), [0, 0, -1], atol=1e-3)


def _slow_vote(maps: np.ndarray, ignore: int) -> tuple[int, int]:
    names = [name for name in maps if name != ignore]
    if not names:
        return ignore, 0
    return min((-names.count(name), name) for name in names)[1], max(names.count(name) for name in names)


@settings(max_examples=50)
@given(
    st.integers(2, 6).flatmap(lambda n: arrays(np.uint8, (n, 3, 4), elements=st.sampled_from([0, 1, 2, 11, 133, 255])))
)
def test_the_vote_is_the_majority_with_ties_to_the_lowest(maps: np.ndarray) -> None:
    winner, votes = vote(list(maps), 11)
    for index in np.ndindex(3, 4):
        assert (winner[index], votes[index]) == _slow_vote(maps[(slice(None), *index)], 11)


def test_agreement_is_the_share_of_votes() -> None:
    labels = {name: Modality(name, Kind.LABELS, taxonomy=CAMVID) for name in "abc"}
    maps = {
        name: np.uint8(row).reshape(1, 1, 4, 1)
        for name, row in {"a": [1, 1, 1, 11], "b": [1, 1, 2, 11], "c": [1, 2, 3, 11]}.items()
    }
    frames = np.zeros((1, 1, 4, 3), np.uint8)
    majority, agreement = MajorityVote(list("abc")), VoteAgreement(list("abc"))
    assert majority.produces(labels).taxonomy == CAMVID
    agreement.produces(labels)
    assert majority.compute(batch(frames, **maps)).ravel().tolist() == [1, 1, 1, 11]
    assert agreement.compute(batch(frames, **maps)).ravel().tolist() == [255, 170, 85, 0]


def test_what_is_made_from_truth_is_truth() -> None:
    truth = Modality("labels", Kind.LABELS, taxonomy=CITYSCAPES, truth=True)
    assert LabelMap("labels", "camvid").produces({"labels": truth}).truth
    other = Modality("net", Kind.LABELS, taxonomy=CITYSCAPES)
    assert MajorityVote(["labels", "net"]).produces({"labels": truth, "net": other}).truth
    assert not LabelMap("net", "camvid").produces({"net": other}).truth


def test_the_shipped_map_says_what_the_data_set_says() -> None:
    expert = LabelMap("net", "camvid")
    expert.produces({"net": Modality("net", Kind.LABELS, taxonomy=CITYSCAPES)})
    ids = np.arange(19, dtype=np.uint8).reshape(1, 1, 19, 1)
    mapped = expert.compute(batch(np.zeros((1, 1, 19, 3), np.uint8), net=ids)).ravel().tolist()
    assert mapped == [3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10]
    ignored = np.full((1, 1, 19, 1), 255, np.uint8)
    assert set(expert.compute(batch(np.zeros((1, 1, 19, 3), np.uint8), net=ignored)).ravel()) == {11}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("road = ", "raod = "), "no class 'raod' in 'camvid'"),
        (('["road"]', '["raod"]'), "no class 'raod' in 'cityscapes'"),
        (('["road"]', "[]"), "not so: road"),
        (("ignored = []", 'ignored = ["road"]'), "not so: road"),
        (('from = "cityscapes"', 'from = "coco"'), "`from` is 'coco'"),
        (("[classes]", "[klasses]"), "not a table"),
        (("[classes]", "[classes"), "not a table"),
    ],
)
def test_a_wrong_table_is_named_with_its_fault(change: tuple[str, str], message: str) -> None:
    from importlib.resources import files

    text = (files("edgekit_experts") / "tables" / "cityscapes-to-camvid.toml").read_text(encoding="utf-8")
    with pytest.raises(ExpertError, match=message):
        parse_mapping(text.replace(*change, 1), CITYSCAPES, CAMVID, "mine.toml")


@pytest.mark.parametrize("to", ["camvid", "dronescapes"])
@pytest.mark.parametrize("source", ["ade20k", "cityscapes", "coco-panoptic", "mapillary"])
def test_every_table_that_ships_fits_its_taxonomies(source: str, to: str) -> None:
    lookup = find_mapping(TAXONOMIES[source], to).lookup
    named = lookup[: len(TAXONOMIES[source])]
    target = TAXONOMIES[to]
    assert {target.classes.index("sky"), target.classes.index("road")} <= set(named.tolist())
    assert set(lookup[len(TAXONOMIES[source]) :].tolist()) == {target.ignore}


def test_a_taxonomy_of_ones_own_is_a_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('name = "mine"\nclasses = ["way", "rest"]\n', encoding="utf-8")
    table = tmp_path / "table.toml"
    rest = ", ".join(f'"{name}"' for name in CITYSCAPES.classes[1:])
    table.write_text(
        f'from = "cityscapes"\nto = "mine"\n[classes]\nway = ["road"]\nrest = [{rest}]\n', encoding="utf-8"
    )
    expert = LabelMap(of="net", to=str(mine), table=str(table))
    modality = expert.produces({"net": Modality("net", Kind.LABELS, taxonomy=CITYSCAPES)})
    assert modality.taxonomy is not None
    assert modality.taxonomy.classes == ("way", "rest")
    ids = np.uint8([[[[0], [5], [255]]]])
    assert expert.compute(batch(np.zeros((1, 1, 3, 3), np.uint8), net=ids)).ravel().tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes = ['a']", "name"),
        ("name = 'x'", "classes"),
        ("name = 'x'\nclasses = ['a', 'a']", "twice"),
        ("[", "no taxonomy"),
    ],
)
def test_a_malformed_taxonomy_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ExpertError, match=message):
        find_taxonomy(str(path))
