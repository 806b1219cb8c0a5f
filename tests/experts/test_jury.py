"""The jury: label maps are trusted class by class, as far as their agreement shows, and never by a true label."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_data_commands import edgekit

from edgekit_experts.classical.labels import JuryVerdict
from edgekit_experts.dataset import Dataset, VideoInfo
from edgekit_experts.expert import Batch
from edgekit_experts.jury import Jury, expectation_maximisation, fit_jury
from edgekit_runtime.errors import DataError, ExpertError, UsageError
from edgekit_runtime.modality import Kind, Modality, Taxonomy

YARD = Taxonomy("yard", ("grass", "tree", "car"), ((0, 255, 0), (0, 128, 0), (255, 0, 0)))
NAMES = ("shy", "bold", "blind")
# Rows: the truth; columns: what is said. `shy` and `blind` take every other tree for grass; `bold` sees them all.
TRUE_CONFUSION = np.array(
    [
        [[0.97, 0.02, 0.01], [0.45, 0.54, 0.01], [0.05, 0.05, 0.90]],
        [[0.88, 0.11, 0.01], [0.02, 0.97, 0.01], [0.30, 0.10, 0.60]],
        [[0.95, 0.03, 0.02], [0.55, 0.43, 0.02], [0.10, 0.05, 0.85]],
    ]
)


def drawn(seed: int = 0, size: tuple[int, int] = (96, 128), frames: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Truth `(frames, *size)`, and what each map says of it `(3, frames, *size)`, errors drawn independently."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, (frames, *size), p=(0.5, 0.3, 0.2)).astype(np.uint8)
    chance = rng.random((3, frames, *size))
    limits = TRUE_CONFUSION.cumsum(axis=2)[:, truth]
    return truth, (chance[..., None] > limits[..., :2]).sum(axis=-1).astype(np.uint8)


@pytest.fixture
def yard(tmp_path: Path) -> tuple[Path, np.ndarray]:
    truth, said = drawn()
    data = Dataset.create(tmp_path / "data")
    video = data.add_video("yard", VideoInfo(len(truth), truth.shape[1:], 25.0))
    video.declare(Modality("rgb", Kind.IMAGE, 3), expert="test")
    video.write("rgb", 0, np.zeros((*truth.shape, 3), np.uint8))
    for name, maps in zip(NAMES, said, strict=True):
        video.declare(Modality(name, Kind.LABELS, taxonomy=YARD), expert="test")
        video.write(name, 0, maps[..., None])
    video.declare(Modality("labels", Kind.LABELS, taxonomy=YARD, truth=True), expert="test")
    video.write("labels", 0, truth[..., None])
    return tmp_path / "data", truth


def test_expectation_maximisation_finds_who_errs_where() -> None:
    _, said = drawn(frames=12)
    cells, counts = np.unique(said.reshape(3, -1), axis=1, return_counts=True)
    prior, confusion, iterations = expectation_maximisation(cells, counts.astype(float), 3)
    assert 1 < iterations < 100
    np.testing.assert_allclose(confusion[:, :, :3], TRUE_CONFUSION, atol=0.02)
    np.testing.assert_allclose(prior, [0.5, 0.3, 0.2], atol=0.01)
    np.testing.assert_allclose(confusion.sum(axis=2), 1, atol=1e-9)


def test_the_verdict_is_right_where_most_err_alike(yard: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """A vote misses the trees that two of three miss. The jury knows who can be believed."""
    path, truth = yard
    config = tmp_path / "jury.toml"
    answer = json.loads(edgekit("jury", path, "--of", ",".join(NAMES), "-o", config, "--json"))
    assert (answer["frames"], answer["modality"]) == (6, "jury")
    vote = tmp_path / "vote.toml"
    vote.write_text(f'[vote]\nexpert = "majority_vote"\nof = {json.dumps(NAMES)}\n', encoding="utf-8")
    edgekit("derive", path, "-c", config)
    edgekit("derive", path, "-c", vote)
    video = Dataset.open(path).video("yard")
    right = {
        name: np.mean([(video.read(name, i)[..., 0] == truth[i])[truth[i] == 1].mean() for i in range(len(truth))])
        for name in ("vote", "jury")
    }
    assert right["vote"] < 0.75
    assert right["jury"] > 0.95
    assert set(video.modalities) >= {"jury", "jury_agreement"}
    assert not video.modalities["jury"].truth
    assert "tree" in edgekit("jury", path, "--of", ",".join(NAMES), "-o", config)


def test_what_a_map_ignores_is_said_too_and_what_all_ignore_is_ignored(
    yard: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    path, _ = yard
    fitted = fit_jury(Dataset.open(path), NAMES)
    file = tmp_path / "jury.json"
    file.write_text(fitted.to_json(), encoding="utf-8")
    expert = JuryVerdict(NAMES, str(file))
    maps = {name: Modality(name, Kind.LABELS, taxonomy=YARD) for name in NAMES}
    assert expert.produces(maps).taxonomy == YARD
    shy, bold, blind = (
        np.array(ids, np.uint8).reshape(1, 1, -1, 1) for ids in ([0, 255, 255], [1, 1, 255], [0, 0, 255])
    )
    batch = Batch(np.zeros((1, 1, 3, 3), np.uint8), {"shy": shy, "bold": bold, "blind": blind}, 0, "yard", 25.0)
    assert expert.compute(batch)[0, 0, :, 0].tolist() == [1, 1, 255]


def test_a_jury_is_the_same_after_reading(yard: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    fitted = fit_jury(Dataset.open(yard[0]), NAMES)
    (tmp_path / "jury.json").write_text(fitted.to_json(), encoding="utf-8")
    read = Jury.read(tmp_path / "jury.json")
    assert (read.of, read.classes, read.provenance) == (fitted.of, fitted.classes, fitted.provenance)
    np.testing.assert_allclose(read.confusion, fitted.confusion, rtol=1e-6)
    assert read.to_json() == fitted.to_json()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "another"}, "another format"),
        ({"version": 9}, "newer"),
        ({"prior": [0.5, 0.5]}, "do not have the shape"),
        ({"prior": [0.5, 0.5, 0.0]}, "greater than 0"),
        ({"confusion": {}}, "not a jury: 'shy'"),
        ({"of": 3}, "not a jury"),
    ],
)
def test_a_file_that_is_no_jury_is_refused(
    change: dict[str, object], reason: str, yard: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    table = json.loads(fit_jury(Dataset.open(yard[0]), NAMES).to_json())
    (tmp_path / "jury.json").write_text(json.dumps({**table, **change}), encoding="utf-8")
    with pytest.raises(ExpertError, match=reason):
        _ = JuryVerdict(NAMES, str(tmp_path / "jury.json")).identity
    (tmp_path / "jury.json").write_text("nothing", encoding="utf-8")
    with pytest.raises(ExpertError, match="not a jury"):
        _ = JuryVerdict(NAMES, str(tmp_path / "jury.json")).identity


def test_bad_input(yard: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, _ = yard
    out = tmp_path / "jury.toml"
    with pytest.raises(UsageError, match="three or more different label maps"):
        edgekit("jury", path, "--of", "shy,bold", "-o", out)
    with pytest.raises(UsageError, match="'boldd' is no label map"):
        edgekit("jury", path, "--of", "shy,boldd,blind", "-o", out)
    with pytest.raises(UsageError, match="'labels' is what people said"):
        edgekit("jury", path, "--of", "shy,bold,labels", "-o", out)
    with pytest.raises(UsageError, match=r"no \.toml file"):
        edgekit("jury", path, "--of", ",".join(NAMES), "-o", tmp_path / "jury.json")
    with pytest.raises(UsageError, match="no label map of the split 'val'"):
        edgekit("jury", path, "--of", ",".join(NAMES), "-o", out, "--split", "val")
    with Dataset.open(path).writing("yard") as video:
        video.declare(Modality("late", Kind.LABELS, taxonomy=YARD), expert="test")
    with pytest.raises(DataError, match="No frame of the split 'train' has all of shy, bold, late"):
        edgekit("jury", path, "--of", "shy,bold,late", "-o", out)
    assert not out.exists()
    (tmp_path / "other.json").write_text(
        fit_jury(Dataset.open(path), NAMES).to_json().replace('"car"', '"bus"'), encoding="utf-8"
    )
    maps = {name: Modality(name, Kind.LABELS, taxonomy=YARD) for name in (*NAMES, "new")}
    with pytest.raises(ExpertError, match="the maps have other classes"):
        JuryVerdict(NAMES, str(tmp_path / "other.json")).produces(maps)
    with pytest.raises(ExpertError, match="knows nothing of new"):
        JuryVerdict((*NAMES, "new"), str(tmp_path / "other.json")).produces(maps)
