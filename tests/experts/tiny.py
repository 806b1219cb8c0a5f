"""Small random networks of real architectures, saved to disk as their library saves trained ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from edgekit_experts.taxonomies import CITYSCAPES

HALVES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def save(folder: Path, model: Any, processor: str, **preparation: Any) -> str:
    with torch.no_grad():  # random networks answer nearly the same everywhere; these do not
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    model.eval().save_pretrained(folder)
    table = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, **preparation}
    table["image_processor_type"] = processor
    (folder / "preprocessor_config.json").write_text(json.dumps(table), encoding="utf-8")
    return str(folder)


def tiny_dpt(folder: Path) -> str:
    import transformers

    torch.manual_seed(0)
    config = transformers.DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=37,
        image_size=64,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 32, 32, 32],
        fusion_hidden_size=32,
        is_hybrid=False,
    )
    size = {"size": {"height": 64, "width": 64}, "resample": 3, "keep_aspect_ratio": False}
    return save(folder, transformers.DPTForDepthEstimation(config), "DPTImageProcessor", **size, **HALVES)


def tiny_segformer(folder: Path) -> str:
    import transformers

    torch.manual_seed(1)
    config = transformers.SegformerConfig(
        depths=[1] * 4,
        hidden_sizes=[16, 16, 32, 32],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        id2label=dict(enumerate(CITYSCAPES.classes)),
        label2id={name: number for number, name in enumerate(CITYSCAPES.classes)},
    )
    size = {"size": {"height": 64, "width": 96}, "resample": 2}
    model = transformers.SegformerForSemanticSegmentation(config)
    return save(folder, model, "SegformerImageProcessor", **size, **HALVES)
