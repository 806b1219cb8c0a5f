"""The data set store: what it promises to its readers and to those who pull the plug."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from edgekit_experts.dataset import Dataset, Video, VideoInfo, unit_frames
from edgekit_experts.dataset.shard import ZstdCodec, index_bytes, pack, read_index, unpack
from edgekit_experts.dataset.unit import UnitState
from edgekit_experts.taxonomies import CAMVID
from edgekit_runtime.errors import DataError
from edgekit_runtime.modality import Kind, Modality

RGB = Modality("rgb", Kind.IMAGE, 3, "uint8", (0, 255))
LABELS = Modality("labels", Kind.LABELS, taxonomy=CAMVID)
DEPTH = Modality("depth", Kind.DEPTH, 1, "float16", unit="m")
MASK = Modality("mask", Kind.MASK, range=(0, 1))


@pytest.fixture
def video(tmp_path: Path) -> Video:
    return Dataset.create(tmp_path / "data").add_video("flight", VideoInfo(50, (12, 16), 25.0))


def frames(count: int, modality: Modality, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 11, (count, 12, 16, modality.channels)).astype(modality.dtype)


def reopened(video: Video) -> Video:
    return Dataset.open(video._storage.root).video(video.name)


def test_what_is_written_is_read_by_us_and_by_any_zarr_library(video: Video) -> None:
    for modality in (RGB, LABELS, DEPTH, MASK):
        stored = frames(40, modality)
        video.declare(modality, expert="test")
        video.write(modality.name, 0, stored)
        np.testing.assert_array_equal(reopened(video).read_many(modality.name, 0, 40), stored)
        array = zarr.open_array(video._storage.root / "flight" / modality.name, mode="r")
        assert array.shape == (50, 12, 16, modality.channels)
        assert array.chunks == (1, 12, 16, modality.channels)
        np.testing.assert_array_equal(array[:40], stored)
        assert array.attrs["edgekit"]["modality"] == modality.to_dict()


def test_masks_are_packed(tmp_path: Path) -> None:
    video = Dataset.create(tmp_path / "data").add_video("flight", VideoInfo(8, (270, 481), 25.0))
    noise = np.random.default_rng(0).integers(0, 2, (8, 270, 481, 1), np.uint8)
    video.declare(MASK, expert="test")
    video.write("mask", 0, noise)
    # Noise cannot be compressed: a bit for a pixel is the least.
    assert video.arrays["mask"].size_bytes() < 1.05 * noise.size / 8
    np.testing.assert_array_equal(reopened(video).read_many("mask", 0, 8), noise)
    array = zarr.open_array(tmp_path / "data" / "flight" / "mask", mode="r")
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array[:], noise)


def test_an_array_keeps_the_encoding_that_its_frames_have(video: Video) -> None:
    video.declare(MASK, expert="test", params={"v": 1})
    array = video.arrays["mask"]
    array.codec = ZstdCodec()  # as masks were written once
    array.save()
    stored = frames(32, MASK) % 2
    video.write("mask", 0, stored)
    before = Dataset.open(video._storage.root).content_hash()
    again = reopened(video)
    np.testing.assert_array_equal(again.read_many("mask", 0, 32), stored)
    again.declare(MASK, expert="test", params={"v": 2})
    again.declare(MASK, expert="test", params={"v": 1})
    np.testing.assert_array_equal(reopened(video).read_many("mask", 0, 32), stored)
    assert Dataset.open(video._storage.root).content_hash() == before


def test_frames_that_others_encoded_are_refused(video: Video) -> None:
    video.declare(RGB, expert="test")
    path = video._storage.root / "flight" / "rgb" / "zarr.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    blosc = {"typesize": 1, "cname": "zstd", "clevel": 1, "shuffle": "bitshuffle", "blocksize": 0}
    for codecs in (
        [],
        [{"name": "bytes"}],
        [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}],
        [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": "most", "checksum": False}}],
        *(
            [{"name": "bytes"}, {"name": "blosc", "configuration": blosc | wrong}]
            for wrong in (
                {"shuffle": "riffle"},
                {"cname": "zip"},
                {"cname": 3},
                {"clevel": 99},
                {"typesize": "1"},
                {"more": 1},
            )
        ),
    ):
        table["codecs"][0]["configuration"]["codecs"] = codecs
        path.write_text(json.dumps(table), encoding="utf-8")
        with pytest.raises(DataError, match="does not write"):
            _ = reopened(video).modalities


def test_zarr_sees_a_group_of_groups_with_nothing_foreign_in_it(video: Video) -> None:
    video.declare(RGB, expert="test")
    root = zarr.open_group(video._storage.root, mode="r")
    assert [name for name, _ in root.members(max_depth=None)] == ["flight", "flight/rgb"]


def test_a_hole_is_visible_and_reads_as_the_value_that_means_nothing(video: Video) -> None:
    for modality in (LABELS, DEPTH):
        video.declare(modality, expert="test")
        video.write(modality.name, 10, frames(5, modality))
    assert np.flatnonzero(video.done("depth")).tolist() == [10, 11, 12, 13, 14]
    with pytest.raises(DataError, match="Frame 9 of depth is missing"):
        video.read("depth", 9)
    root = zarr.open_group(video._storage.root, mode="r")
    assert np.isnan(root["flight/depth"][9]).all()
    assert (root["flight/labels"][9] == CAMVID.ignore).all()


def test_frames_that_come_later_join_those_that_are_there(video: Video) -> None:
    whole = frames(50, RGB)
    video.declare(RGB, expert="test")
    for start, stop in ((20, 40), (0, 20), (40, 50)):
        video.write("rgb", start, whole[start:stop])
    np.testing.assert_array_equal(reopened(video).read_many("rgb", 0, 50), whole)


def test_a_failure_is_kept_with_its_message_until_the_frame_succeeds(video: Video) -> None:
    video.declare(RGB, expert="test")
    video.fail("rgb", 33, "out of memory")
    assert reopened(video).failed("rgb") == {33: "out of memory"}
    assert not reopened(video).done("rgb").any()
    video.write("rgb", 33, frames(1, RGB))
    assert reopened(video).failed("rgb") == {}
    assert reopened(video).done("rgb")[33]


def test_other_parameters_make_frames_stale_and_the_old_ones_fresh_again(video: Video) -> None:
    video.declare(RGB, expert="test", params={"gain": 1})
    video.write("rgb", 0, frames(40, RGB))
    video.declare(RGB, expert="test", params={"gain": 2})
    assert (video.done("rgb").sum(), video.stale("rgb").sum()) == (0, 40)
    assert (reopened(video).done("rgb").sum(), reopened(video).stale("rgb").sum()) == (0, 40)
    video.declare(RGB, expert="test", params={"gain": 1})
    assert (video.done("rgb").sum(), video.stale("rgb").sum()) == (40, 0)


def test_frames_made_with_other_parameters_never_pass_for_the_former_ones(video: Video) -> None:
    # The moment between the shard and its state, then a return to the first parameters.
    video.declare(RGB, expert="test", params={"gain": 1})
    video.write("rgb", 0, frames(32, RGB))
    video.declare(RGB, expert="test", params={"gain": 2})
    storage, state = video._storage, "flight/rgb/state/0.json"
    real_put = storage.put

    def put_until_the_last_state(key: str, data: bytes) -> None:
        if key == state and UnitState.from_json(data).done:
            raise KeyboardInterrupt
        real_put(key, data)

    storage.put = put_until_the_last_state  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        video.write("rgb", 0, frames(32, RGB, seed=1))
    storage.put = real_put  # type: ignore[method-assign]
    again = reopened(video)
    again.declare(RGB, expert="test", params={"gain": 1})
    assert not again.done("rgb").any()


def test_a_change_upstream_makes_everything_downstream_stale(video: Video) -> None:
    video.declare(RGB, expert="test", params={"gain": 1})
    video.declare(DEPTH, expert="net", inputs={"rgb": video.arrays["rgb"].declaration.hash})
    video.declare(LABELS, expert="cut", inputs={"depth": video.arrays["depth"].declaration.hash})
    video.write("labels", 0, frames(7, LABELS))
    assert video.done("labels").sum() == 7
    video.declare(RGB, expert="test", params={"gain": 2})
    assert (video.done("labels").sum(), video.stale("labels").sum()) == (0, 7)


def test_another_type_starts_the_array_afresh(video: Video) -> None:
    video.declare(DEPTH, expert="test")
    video.write("depth", 0, frames(3, DEPTH))
    video.declare(Modality("depth", Kind.DEPTH, 1, "float32"), expert="test")
    assert not video.done("depth").any()
    assert not video.stale("depth").any()


def test_the_frame_count_may_shrink_when_the_end_comes_early(video: Video) -> None:
    video.declare(RGB, expert="test")
    video.write("rgb", 0, frames(40, RGB))
    video.count(40)
    assert reopened(video).done("rgb").all()
    assert zarr.open_array(video._storage.root / "flight" / "rgb", mode="r").shape[0] == 40


def test_the_content_hash_follows_every_change_and_nothing_else(video: Video) -> None:
    def now() -> str:
        return Dataset.open(video._storage.root).content_hash()

    seen = [now()]
    video.declare(RGB, expert="test")
    seen.append(now())
    video.write("rgb", 0, frames(2, RGB))
    seen.append(now())
    assert now() == seen[-1]
    video.fail("rgb", 5, "no")
    seen.append(now())
    assert len(set(seen)) == 4


def test_damage_is_an_error_that_names_the_file(video: Video) -> None:
    video.declare(RGB, expert="test")
    video.write("rgb", 0, frames(40, RGB))
    shard = video._storage.root / "flight" / "rgb" / "c.0.0.0.0"
    data = bytearray(shard.read_bytes())
    data[-10] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match="damaged") as caught:
        reopened(video).read("rgb", 0)
    assert "c.0.0.0.0" in caught.value.hint
    shard.write_bytes(b"short")
    with pytest.raises(DataError, match="damaged"):
        reopened(video).read("rgb", 0)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"shape": [1]}', '{"attributes": {"edgekit": null}}'])
def test_damaged_metadata_is_an_error(video: Video, text: str) -> None:
    video.declare(RGB, expert="test")
    root = video._storage.root
    (root / "flight" / "rgb" / "zarr.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError):
        _ = reopened(video).modalities
    (root / "flight" / "zarr.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError):
        reopened(video)


def test_what_does_not_fit_is_refused(video: Video) -> None:
    video.declare(RGB, expert="test")
    with pytest.raises(DataError, match="uint8"):
        video.write("rgb", 0, frames(1, RGB).astype(np.float32))
    with pytest.raises(DataError, match="do not fit"):
        video.write("rgb", 49, frames(2, RGB))
    with pytest.raises(DataError, match="asked for"):
        video.read("rgb", 50)
    with pytest.raises(DataError, match="Did you mean 'rgb'"):
        video.read("rbg", 0)
    with pytest.raises(DataError, match="cannot be the name"):
        video.declare(Modality("../rgb", Kind.MASK), expert="test")


def test_nothing_and_something_else_are_told_apart_from_a_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set"):
        Dataset.open(tmp_path / "nothing")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(DataError, match="is not a data set"):
        Dataset.create(tmp_path / "mine")
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}', encoding="utf-8")
    with pytest.raises(DataError, match="not an edgekit data set"):
        Dataset.open(tmp_path)
    table = {"attributes": {"edgekit": {"format": "edgekit-dataset", "version": 99}}}
    (tmp_path / "zarr.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(DataError, match="newer edgekit"):
        Dataset.open(tmp_path)


def test_one_name_is_one_video(tmp_path: Path) -> None:
    data = Dataset.create(tmp_path)
    first = VideoInfo(5, (12, 16), 25.0, source={"uri": "a.mp4", "fingerprint": "1"})
    data.add_video("a", first)
    assert data.add_video("a", first).frames == 5
    for other in (
        VideoInfo(5, (12, 16), 25.0, source={"uri": "b.mp4", "fingerprint": "2"}),
        VideoInfo(5, (24, 32), 25.0, source=first.source),
        VideoInfo(5, (12, 16), 25.0, split="val", source=first.source),
    ):
        with pytest.raises(DataError):
            data.add_video("a", other)
    with pytest.raises(DataError, match="not a split"):
        data.add_video("b", VideoInfo(5, (12, 16), 25.0, split="trian"))


def _hold(path: Path, held: object, release: object) -> None:
    with Dataset.open(path).writing("flight"):
        held.set()  # type: ignore[attr-defined]
        release.wait(30)  # type: ignore[attr-defined]


def test_a_second_writer_is_refused_and_a_reader_is_not(video: Video) -> None:
    path = video._storage.root
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(path, held, release))
    other.start()
    try:
        assert held.wait(30)
        assert Dataset.open(path).videos == ("flight",)
        with pytest.raises(DataError, match="being written"), Dataset.open(path).writing("flight"):
            pass
    finally:
        release.set()
        other.join(30)
    with Dataset.open(path).writing("flight"):
        pass


def test_units_shrink_as_frames_grow() -> None:
    assert [unit_frames(size) for size in ((360, 480), (540, 960), (1080, 1920), (2160, 3840))] == [32, 32, 8, 2]


@given(st.dictionaries(st.integers(0, 31), st.binary(max_size=50)))
def test_a_shard_gives_back_what_was_packed(encoded: dict[int, bytes]) -> None:
    shard = pack(encoded, 32)
    assert unpack(shard, 32) == encoded
    assert read_index(shard[-index_bytes(32) :], 32).shape == (32, 2)


@given(st.frozensets(st.integers(0, 31)), st.dictionaries(st.integers(0, 31), st.text(max_size=20)))
def test_a_state_gives_back_what_was_noted(done: frozenset[int], failed: dict[int, str]) -> None:
    state = UnitState("abc", done, failed)
    assert UnitState.from_json(state.to_json()) == state
