"""Pictures and npz files that other tools wrote, into a data set and back."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import files_of

from edgekit_experts.config import parse_config
from edgekit_experts.dataset import Dataset, Video
from edgekit_experts.import_frames import open_frames
from edgekit_experts.pipeline import ExtractOptions, extract
from edgekit_experts.status import read_status
from edgekit_experts.taxonomies import CAMVID
from edgekit_experts.video import open_video
from edgekit_experts.vre import export_vre, import_vre
from edgekit_runtime.errors import DataError, SourceError


def import_folder(folder: Path, out: Path, split: str = "train", **options: object) -> Video:
    opened = open_frames(folder, **options)  # type: ignore[arg-type]
    extract([opened.reader], out, opened.config, ExtractOptions(split=split))
    return Dataset.open(out).video(opened.reader.name)


def miou(video: Video, name: str) -> float:
    """Mean over classes of the intersection over union, pooled over all frames, in percent."""
    counts = np.zeros((12, 12), np.int64)
    for index in range(video.frames):
        truth, found = video.read("labels", index), video.read(name, index)
        known = truth != CAMVID.ignore
        pairs = truth[known].astype(np.int64) * 12 + np.minimum(found[known], 11)
        counts += np.bincount(pairs, minlength=144).reshape(12, 12)
    hit = np.diag(counts)[:11]
    union = counts.sum(1)[:11] + counts.sum(0)[:11] - hit
    return float(100 * (hit / union).mean())


def test_camvid_comes_in_with_its_four_experts_and_their_vote(real: Path, tmp_path: Path) -> None:
    video = import_folder(real / "camvid" / "val", tmp_path / "data", "val")
    assert (video.name, video.split, video.frames, video.size) == ("val", "val", 101, (360, 480))
    assert set(video.modalities) == {
        "rgb", "hsv", "canny", "labels", "espnetv2_s15", "espnetv2_s20", "dicenet_s175", "vote", "agreement",
        "depth_pydnet",
    }  # fmt: skip
    assert [name for name, modality in video.modalities.items() if modality.truth] == ["labels"]
    assert all(video.done(name).all() for name in video.modalities)
    # As the data's own description gives them.
    expected = {"espnetv2_s15": 58.9, "espnetv2_s20": 60.7, "dicenet_s175": 49.8, "vote": 60.9}
    assert {name: round(miou(video, name), 1) for name in expected} == expected
    depth = video.read("depth_pydnet", 50)
    assert depth.dtype == np.float16
    assert 0 <= depth.min() < depth.max() <= 1


def small_folder(folder: Path, frames: int = 4) -> Path:
    rng = np.random.default_rng(0)
    for name in ("rgb", "labels", "experts/net_a", "experts/net_b"):
        (folder / name).mkdir(parents=True)
    for index in range(frames):
        cv2.imwrite(str(folder / f"rgb/f{index}.png"), rng.integers(0, 256, (32, 48, 3), np.uint8))
        for name in ("labels", "experts/net_a", "experts/net_b"):
            cv2.imwrite(str(folder / f"{name}/f{index}.png"), rng.integers(0, 11, (32, 48), np.uint8))
    return folder


TABLE = """
[folders.labels]
kind = "labels"
taxonomy = "camvid"
truth = true
optional = true
[folders."experts/net_a"]
kind = "labels"
taxonomy = "camvid"
[folders."experts/net_b"]
kind = "labels"
taxonomy = "camvid"
[modalities.labels]
expert = "given"
of = "labels"
[modalities.vote]
expert = "majority_vote"
of = ["experts/net_a", "experts/net_b"]
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.toml"
    path.write_text(TABLE, encoding="utf-8")
    return path


def test_a_picture_that_is_not_there_is_a_hole_and_may_come_later(tmp_path: Path, table: Path) -> None:
    folder = small_folder(tmp_path / "street")
    picture = folder / "experts/net_b/f2.png"
    kept = picture.read_bytes()
    picture.unlink()
    video = import_folder(folder, tmp_path / "data", table=table)
    assert video.done("vote").tolist() == [True, True, False, True]
    assert video.done("labels").all()
    status = read_status(Dataset.open(tmp_path / "data"))
    assert (status.missing, status.failed) == (1, 0)
    picture.write_bytes(kept)
    assert import_folder(folder, tmp_path / "data", table=table).done("vote").all()


def test_labels_need_not_be_there(tmp_path: Path, table: Path) -> None:
    folder = small_folder(tmp_path / "street")
    shutil.rmtree(folder / "labels")
    assert set(import_folder(folder, tmp_path / "data", table=table).modalities) == {"vote"}


def test_pictures_alone_need_no_table(tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "street")
    shutil.rmtree(folder / "labels")
    shutil.rmtree(folder / "experts")
    video = import_folder(folder, tmp_path / "data", name="my street", fps=2.0)
    assert (video.name, video.fps, set(video.modalities)) == ("my_street", 2.0, {"rgb", "hsv", "canny"})


def test_a_second_import_adds_a_video(tmp_path: Path, table: Path) -> None:
    out = tmp_path / "data"
    import_folder(small_folder(tmp_path / "a"), out, table=table)
    import_folder(small_folder(tmp_path / "b", 5), out, "val", table=table)
    data = Dataset.open(out)
    assert {name: (data.video(name).split, data.video(name).frames) for name in data.videos} == {
        "a": ("train", 4),
        "b": ("val", 5),
    }


def test_pictures_of_another_size_come_at_the_size_of_the_frames(tmp_path: Path, table: Path) -> None:
    folder = small_folder(tmp_path / "street")
    cv2.imwrite(str(folder / "experts/net_a/f1.png"), np.full((16, 24), 7, np.uint8))
    cv2.imwrite(str(folder / "experts/net_b/f1.png"), np.full((16, 24), 7, np.uint8))
    video = import_folder(folder, tmp_path / "data", table=table)
    assert (video.read("vote", 1) == 7).all()


def test_what_does_not_fit_is_named(tmp_path: Path, table: Path) -> None:
    folder = small_folder(tmp_path / "street")
    with pytest.raises(DataError, match="Nothing says what"):
        open_frames(folder)
    with pytest.raises(SourceError, match="no folder rgb/"):
        open_frames(folder / "experts")
    with pytest.raises(DataError, match="cannot be read"):
        open_frames(folder, table=tmp_path / "none.toml")
    cv2.imwrite(str(folder / "experts/net_a/f1.png"), np.full((32, 48), 19, np.uint8))
    with pytest.raises(SourceError, match=r"f1.png holds class 19; the taxonomy 'camvid' ends at 10"):
        import_folder(folder, tmp_path / "data", table=table)
    cv2.imwrite(str(folder / "experts/net_a/f1.png"), np.zeros((32, 48, 3), np.uint8))
    with pytest.raises(SourceError, match="3 channels"):
        import_folder(folder, tmp_path / "data", table=table)
    (folder / "experts/net_a/f1.png").write_bytes(b"PNG")
    with pytest.raises(SourceError, match="cannot be read as a picture"):
        import_folder(folder, tmp_path / "data", table=table)
    shutil.rmtree(folder / "experts/net_a")
    with pytest.raises(DataError, match="has no folder experts/net_a"):
        open_frames(folder, table=table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('taxonomy = "camvid"', 'taxonomy = "camvit"'), "no taxonomy 'camvit'"),
        (('kind = "labels"', 'kind = "label"'), "kind must be 'image', 'labels'"),
        (('kind = "labels"', ""), "'kind' is missing"),
        (('kind = "labels"', 'kind = "labels"\nchannels = "three"'), "channels must be a whole number, not 'three'"),
        (('kind = "labels"', 'kind = "labels"\nchanels = 1'), "no key 'chanels'"),
        (('kind = "labels"', 'kind = "depth"'), "labels, and only labels, need a taxonomy"),
        (("[folders.labels]", "[folder.labels]"), "no table 'folder'"),
        (("[folders.labels]", "[folders.labels"), "not valid TOML"),
        (("[modalities.vote]", "[modalities]\nvote = 3\n[x]"), "`modalities` must hold tables"),
    ],
)
def test_a_wrong_table_is_an_error(tmp_path: Path, table: Path, change: tuple[str, str], message: str) -> None:
    folder = small_folder(tmp_path / "street")
    table.write_text(TABLE.replace(*change, 1), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        import_folder(folder, tmp_path / "data", table=table)


CONFIG = parse_config('[rgb]\nexpert = "rgb"\n[canny]\nexpert = "canny"\n[dis_flow]\nexpert = "dis_flow"\n', "test")


def test_there_and_back_through_the_layout_of_vre(clip: Path, tmp_path: Path) -> None:
    extract([open_video(str(clip))], tmp_path / "data", CONFIG, ExtractOptions(frames=(0, 40)))
    before = Dataset.open(tmp_path / "data").video("clip")
    assert export_vre(Dataset.open(tmp_path / "data"), tmp_path / "vre") == 3 * 40
    loaded = np.load(tmp_path / "vre" / "canny" / "npz" / "39.npz")
    assert list(loaded) == ["arr_0"]
    np.testing.assert_array_equal(loaded["arr_0"], before.read("canny", 39)[..., 0])
    data = Dataset.create(tmp_path / "again")
    assert import_vre(tmp_path / "vre", data) == ["clip"]
    after = Dataset.open(tmp_path / "again").video("clip")
    assert (after.frames, after.fps, after.size, after.split) == (70, 25.0, (48, 64), "train")
    assert after.modalities == before.modalities
    for name in before.modalities:
        np.testing.assert_array_equal(after.done(name), before.done(name))
        np.testing.assert_array_equal(after.read_many(name, 0, 40), before.read_many(name, 0, 40))
    state = files_of(tmp_path / "again")
    import_vre(tmp_path / "vre", Dataset.open(tmp_path / "again"))
    assert files_of(tmp_path / "again") == state


def test_a_folder_that_vre_itself_wrote(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "rgb": rng.integers(0, 256, (3, 24, 32, 3), np.uint8),
        "depth_dpt": rng.random((3, 24, 32)).astype(np.float32),
        "normals_svd": rng.random((3, 24, 32, 3)).astype(np.float32),
        "flow_raft": rng.random((3, 24, 32, 2)).astype(np.float32),
        "semantic": rng.integers(0, 8, (3, 24, 32)).astype(np.uint8),
    }
    for name, frames in arrays.items():
        (tmp_path / "out" / name / "npz").mkdir(parents=True)
        for number, frame in zip((9, 10, 11), frames, strict=True):
            np.savez(tmp_path / "out" / name / "npz" / f"scene_{number}.npz", frame)
    with pytest.raises(DataError, match="could be many things"):
        import_vre(tmp_path / "out", Dataset.create(tmp_path / "data"))
    (name,) = import_vre(tmp_path / "out", Dataset.create(tmp_path / "data"), taxonomies={"semantic": "dronescapes"})
    video = Dataset.open(tmp_path / "data").video(name)
    kinds = {key: modality.kind.value for key, modality in video.modalities.items()}
    assert kinds == {
        "rgb": "image", "depth_dpt": "depth", "normals_svd": "normals", "flow_raft": "flow", "semantic": "labels",
    }  # fmt: skip
    np.testing.assert_array_equal(video.read_many("rgb", 0, 3), arrays["rgb"])
    np.testing.assert_allclose(video.read("depth_dpt", 1)[..., 0], arrays["depth_dpt"][1], atol=1e-3)


def test_broken_npz_files_and_strange_folders_are_errors(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "rgb" / "npz"
    folder.mkdir(parents=True)
    for content in (b"", b"PK\x03\x04 not really"):
        (folder / "0.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"0\.npz cannot be read"):
            import_vre(tmp_path / "out", Dataset.create(tmp_path / "data"))
    np.savez(folder / "0.npz", np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"0\.npz cannot be read"):
        import_vre(tmp_path / "out", Dataset.create(tmp_path / "data"))
    with pytest.raises(DataError, match="not in the layout"):
        import_vre(folder, Dataset.create(tmp_path / "data"))
    with pytest.raises(DataError, match="not empty"):
        export_vre(Dataset.create(tmp_path / "data"), tmp_path / "out")
