"""Outlines of Segment Anything's masks: small random networks against the library's own, mask by mask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from edgekit_experts.expert import Batch
from edgekit_experts.learned.masks import PretrainedMasks
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind

transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

pytestmark = pytest.mark.filterwarnings("ignore")

DECODER = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    return cv2.resize(noise, (180, 120), interpolation=cv2.INTER_CUBIC)


def save(folder: Path, model: Any, preprocessing: dict[str, Any]) -> str:
    with torch.no_grad():
        for parameter in model.mask_decoder.parameters():  # random masks are flat; these are not
            if parameter.ndim > 1:
                parameter.mul_(12)
        head = model.mask_decoder.iou_prediction_head.proj_out
        head.weight.mul_(0.05)
        head.bias.fill_(0.5)  # they are sure of some masks
    model.eval().save_pretrained(folder)
    table = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps({**table, **preprocessing}), encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    vision = {
        "hidden_size": 32,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 128,
        "patch_size": 16,
        "global_attn_indexes": [1],
        "window_size": 4,
        "num_pos_feats": 16,
        "mlp_dim": 64,
    }
    config = transformers.SamConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 8},
        mask_decoder_config=DECODER,
    )
    sides = {"size": {"longest_edge": 128}, "do_pad": True, "pad_size": {"height": 128, "width": 128}}
    sides["image_processor_type"] = "SamImageProcessor"
    return save(tmp_path_factory.mktemp("sam"), transformers.SamModel(config), sides)


@pytest.fixture(scope="module")
def sam2(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(1)
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 16,
        "image_size": [128, 128],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [4, 2, 4, 2],
        "global_attention_blocks": [3],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 32,
    }
    config = transformers.Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 8},
        mask_decoder_config=DECODER,
    )
    return save(
        tmp_path_factory.mktemp("sam2"), transformers.Sam2Model(config), {"size": {"height": 128, "width": 128}}
    )


def outlines(masks: np.ndarray) -> np.ndarray:
    """The strongest outline of probabilities `(M, h, w)`, with OpenCV."""
    strongest = np.zeros(masks.shape[1:], np.float32)
    for mask in masks:
        dx, dy = (cv2.Sobel(mask, cv2.CV_32F, *axis, scale=1 / 4, borderType=cv2.BORDER_REPLICATE) for axis in XY)
        inside = (mask > 0.5).astype(np.uint8)
        outline = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        strongest = np.maximum(strongest, np.hypot(dx, dy) * outline)
    return strongest


XY = ((1, 0), (0, 1))


@pytest.mark.parametrize(("name", "seen"), [("sam", (85, 128)), ("sam2", (128, 128))])
def test_outlines_are_those_of_the_librarys_masks(
    name: str, seen: tuple[int, int], frame: np.ndarray, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    preparation = PretrainedMasks(folder).preparation
    assert preparation.target(*frame.shape[:2]) == seen
    if name == "sam":
        processor = transformers.SamImageProcessorPil.from_pretrained(folder)
        picture = processor(images=Image.fromarray(frame), return_tensors="pt")["pixel_values"]
    else:  # the library prepares pictures for this one with torchvision only
        picture = torch.from_numpy(preparation.tensor(frame, seen))
    grid = [[(x + 0.5) / 5 * seen[1], (y + 0.5) / 5 * seen[0]] for y in range(5) for x in range(5)]
    model = transformers.AutoModelForMaskGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        answer = model(pixel_values=picture, input_points=torch.tensor(grid)[None, :, None], multimask_output=True)
    scores = np.sort(answer.iou_scores.flatten().numpy())
    gap = 20 + int(np.argmax(np.diff(scores[20:55])))
    quality = float(scores[gap : gap + 2].mean())  # some masks are trusted, and clearly so
    trusted = answer.iou_scores.flatten() >= quality
    assert 20 < trusted.sum() < len(trusted) == 75
    expected = outlines(answer.pred_masks.flatten(0, 2)[trusted].sigmoid().numpy())
    assert expected.shape == (32, 32)
    expected = cv2.resize(expected, (128, 128))[: seen[0], : seen[1]]
    expected = 255 * cv2.resize(expected, frame.shape[1::-1])
    assert expected.max() > 30

    expert = PretrainedMasks(folder, points=5, quality=quality)
    modality = expert.produces({})
    assert (modality.kind, modality.channels, modality.dtype) == (Kind.EDGES, 1, "uint8")
    boundaries = expert.compute(Batch(frame[None], {}, 0))
    assert boundaries.shape == (1, *frame.shape[:2], 1)
    # Pillow and OpenCV shrink a picture differently.
    difference = np.abs(boundaries[0, ..., 0] - expected)
    assert difference.mean() < (0.03 if name == "sam" else 0.01) * expected.max()


def test_nothing_is_trusted_nothing_is_outlined(sam: str, frame: np.ndarray) -> None:
    assert not PretrainedMasks(sam, points=2, quality=1).compute(Batch(frame[None], {}, 0)).any()


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExpertError, match="points 0"):
        PretrainedMasks("x", points=0)
    (tmp_path / "config.json").write_text('{"model_type": "dpt"}', encoding="utf-8")
    with pytest.raises(ExpertError, match="is dpt, not SAM"):
        PretrainedMasks(str(tmp_path)).produces({})
