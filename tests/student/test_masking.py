"""Which inputs a training shows: by name, by count, always or never, in patches, and on a schedule."""

from __future__ import annotations

import json

import pytest
import torch

from edgekit_runtime.errors import CheckpointError, UsageError
from edgekit_runtime.modality import Kind, Modality, Taxonomy
from edgekit_student.checkpoint import CheckpointConfig
from edgekit_student.masking import check_masking, hidden_share, sample_masks, sample_patches
from edgekit_student.phg_mae import PHGMAE
from edgekit_student.settings import Masking, TrainSettings, read_settings

NAMES = ["rgb", "depth", "canny", "flow"]
PLAIN = {"mean": [0.0], "std": [1.0]}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def model(masking: dict[str, object]) -> PHGMAE:
    """An untrained PHG-MAE that sees three depths and predicts labels."""
    names = ("a", "b", "c")
    target = Modality("vote", Kind.LABELS, taxonomy=Taxonomy("t", ("x", "y"), ((0, 0, 0), (1, 1, 1))))
    torch.manual_seed(0)
    return PHGMAE(
        CheckpointConfig(
            kind="phg-mae",
            network={"name": "edge-150k", "target": "vote", "masking": masking},
            inputs=tuple(Modality(name, Kind.DEPTH, dtype="float32") for name in names),
            outputs=(target,),
            statistics=dict.fromkeys(names, PLAIN),
            input_size=(32, 32),
        )
    ).eval()


def test_each_input_may_be_hidden_as_often_as_its_name_says() -> None:
    masking = Masking(hide={"rgb": 0.1, "depth": 0.8, "*": 0.3})
    hide = hidden_share(masking, NAMES)
    assert hide == pytest.approx([0.1, 0.8, 0.3, 0.3])
    seen = sample_masks(4000, NAMES, hide=hide, generator=seeded()).float().mean(dim=0)
    assert seen.tolist() == pytest.approx([0.9, 0.2, 0.7, 0.7], abs=0.03)


def test_what_no_name_speaks_of_is_hidden_as_by_default() -> None:
    assert hidden_share(Masking(hide={"rgb": 0.1}), ["rgb", "depth"]) == pytest.approx([0.1, 0.5])


def test_a_fixed_count_is_seen_each_time_and_each_input_in_its_turn() -> None:
    masks = sample_masks(2000, NAMES, visible=2, generator=seeded())
    assert (masks.sum(dim=1) == 2).all()
    assert masks.float().mean(dim=0).tolist() == pytest.approx([0.5] * 4, abs=0.05)
    with_rgb = sample_masks(2000, NAMES, visible=2, always_visible=["rgb"], never_visible=["flow"], generator=seeded())
    assert (with_rgb.sum(dim=1) == 2).all()
    assert with_rgb.float().mean(dim=0).tolist() == pytest.approx([1, 0.5, 0.5, 0], abs=0.05)


def test_a_count_is_of_what_is_there() -> None:
    present = torch.tensor([True, False, True, False])
    assert sample_masks(50, NAMES, visible=3, present=present, generator=seeded()).tolist() == [present.tolist()] * 50
    assert (sample_masks(50, NAMES, visible=1, present=present, generator=seeded()).sum(dim=1) == 1).all()


def test_samples_of_one_batch_have_masks_of_their_own() -> None:
    assert len(torch.unique(sample_masks(32, NAMES, visible=2, generator=seeded()), dim=0)) == 6


def test_what_must_never_be_seen_is_not_even_when_nothing_else_is() -> None:
    masks = sample_masks(2000, NAMES, hide=0.9, never_visible=["depth", "flow"], generator=seeded())
    assert not masks[:, [1, 3]].any()
    assert masks.any(dim=1).all()
    alone = sample_masks(20, NAMES, never_visible=["depth"], present=torch.tensor([False, True, False, False]))
    assert not alone.any(), "blind rather than told"


def test_an_input_that_is_never_visible_changes_no_prediction() -> None:
    net = model({"never_visible": ["b"]})
    sample = {name: torch.rand(2, 32, 32, 1) for name in "abc"}
    other = {**sample, "b": torch.rand(2, 32, 32, 1)}
    assert net.everything().tolist() == [[True, False, True]]
    assert not net.masks(200)[:, 1].any()
    for masks in (net.everything(), net.masks(3, seeded())):
        assert torch.equal(net.predict(sample, masks), net.predict(other, masks))


def test_hiding_grows_over_the_first_steps_and_then_stays() -> None:
    masking = Masking(hide={"rgb": 0.2, "*": 0.6}, ramp=0.5)
    rgb, depth = zip(*(hidden_share(masking, ["rgb", "depth"], done) for done in (0, 0.25, 0.5, 0.9)), strict=True)
    assert rgb == pytest.approx([0, 0.1, 0.2, 0.2])
    assert depth == pytest.approx([0, 0.3, 0.6, 0.6])
    begun = hidden_share(Masking(hide=0.6, hide_start=0.2, ramp=1.0), ["rgb"], 0.5)
    assert begun == pytest.approx([0.4])
    net = model({"hide": 0.9, "ramp": 0.5})
    assert net.masks(100, seeded(), progress=0.0).all()
    assert net.masks(300, seeded()).float().mean() < 0.5, "an ensemble masks as the training did in the end"


def test_a_share_of_the_patches_of_each_input_is_hidden() -> None:
    masking = Masking(patches=0.25, patch_size=8)
    seen = sample_patches((4, 3), (32, 60), masking, seeded())
    assert seen is not None
    assert seen.shape == (4, 3, 4, 8)
    assert (seen.sum(dim=(2, 3)) == 24).all(), "a quarter of 32"
    assert len(torch.unique(seen.flatten(2).flatten(0, 1), dim=0)) == 12, "others of each input of each sample"
    assert sample_patches((4, 3), (32, 60), Masking(), seeded()) is None


def test_hidden_patches_change_no_prediction_and_only_a_training_hides_any() -> None:
    net = model({"patches": 0.5, "patch_size": 8})
    visible = torch.ones(1, 3, dtype=torch.bool)
    sample = {name: torch.rand(1, 32, 32, 1) for name in "abc"}
    patches = torch.ones(1, 3, 4, 4, dtype=torch.bool)
    patches[0, 1, 0, 2] = False
    other = {**sample, "b": sample["b"].clone()}
    other["b"][0, :8, 16:24] = 9.0
    with torch.no_grad():
        assert torch.equal(net(sample, visible, patches)["vote"], net(other, visible, patches)["vote"])
        assert not torch.equal(net(sample, visible)["vote"], net(other, visible)["vote"])
    assert torch.equal(net.predict(sample, visible), net.predict(sample, visible))
    assert not torch.equal(net.predict(sample, visible), net.predict(other, visible))


@pytest.mark.parametrize(
    ("masking", "message"),
    [
        ({"always_visible": ["rbg"]}, "masking.always_visible names 'rbg', which is no input"),
        ({"never_visible": ["rbg"]}, "masking.never_visible names 'rbg'"),
        ({"hide": {"rbg": 0.2}}, "masking.hide names 'rbg'"),
        ({"never_visible": NAMES}, "leaves no input to be seen"),
        ({"visible": 4, "never_visible": ["rgb"]}, "only 3 inputs may be seen"),
    ],
)
def test_sets_that_do_not_fit_the_inputs_are_refused(masking: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_masking(Masking.model_validate(masking), NAMES)


@pytest.mark.parametrize(
    ("masking", "message"),
    [
        ({"hide": "half"}, "masking.hide = 'half': it must be a number from 0 to below 1, or a table"),
        ({"hide": {"rgb": 1.0}}, "masking.hide = .*: it must be a number from 0 to below 1"),
        ({"always_visible": ["rgb"], "never_visible": ["rgb"]}, "rgb cannot be both always_visible and never_visible"),
        ({"hide": {"rgb": 0.2}, "always_visible": ["rgb"]}, "hide names rgb, which always_visible"),
        ({"hide": 0.5, "visible": 2}, "visible is instead of hide: take out hide"),
        ({"ramp": 0.5, "visible": 2}, "take out ramp"),
        ({"always_visible": ["a", "b"], "visible": 1}, "more than the 1 inputs"),
        ({"hide_start": 0.2}, "where a ramp begins, and there is none"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_in_words(masking: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_settings(TrainSettings, None, masking=masking)


@pytest.mark.parametrize(
    "masking", [{}, {"visible": 2, "never_visible": ["a"]}, {"hide": {"a": 0.1, "*": 0.3}, "ramp": 0.2}]
)
def test_what_a_checkpoint_says_of_its_masks_is_read_again(masking: dict[str, object]) -> None:
    written = Masking.model_validate(masking)
    again = Masking.model_validate(json.loads(json.dumps(written.model_dump(mode="json"))))
    assert again == written


def test_a_checkpoint_of_before_still_masks_as_it_did() -> None:
    net = model({"hide": 0.3, "always_visible": ["a"]})
    masks = net.masks(500, seeded())
    draw = torch.rand(500, 3, generator=seeded()) >= 0.3
    assert torch.equal(masks[:, 1:], draw[:, 1:])
    assert masks[:, 0].all()
    with pytest.raises(CheckpointError, match="does not say how"):
        model({"always_visible": ["z"]})
