"""Networks that others have trained, ready to be built: depth and semantics of `transformers`, by name or folder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgekit.deployable import Deployable, Size
from edgekit_experts.dataset.names import closest, plain_name
from edgekit_runtime.errors import BuildError, UsageError
from edgekit_runtime.modality import Kind

if TYPE_CHECKING:
    from edgekit_experts.learned.pretrained import PretrainedDepth, PretrainedLabels

# Short names; any other name or folder goes to `transformers` as it is.
MODELS = {
    "dpt-large": "Intel/dpt-large",
    "dpt-hybrid": "Intel/dpt-hybrid-midas",
    "depth-anything-small": "depth-anything/Depth-Anything-V2-Small-hf",
    "depth-anything-base": "depth-anything/Depth-Anything-V2-Base-hf",
    "depth-anything-large": "depth-anything/Depth-Anything-V2-Large-hf",
    "depth-anything-metric-indoor": "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf",
    "depth-anything-metric-outdoor": "depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf",
    **{f"segformer-b{n}": f"nvidia/segformer-b{n}-finetuned-ade-512-512" for n in range(5)},
    "segformer-b5": "nvidia/segformer-b5-finetuned-ade-640-640",
    **{f"segformer-b{n}-cityscapes": f"nvidia/segformer-b{n}-finetuned-cityscapes-1024-1024" for n in range(6)},
}
# Sides that every network of these families takes, where the checkpoint does not say.
MULTIPLE = 32


def of_checkpoint(model: str, frame: Size, size: Size | None = None) -> Deployable:
    """A checkpoint for depth estimation or semantic segmentation, for frames of this size (height, width).

    The network sees as many pixels as it was published with, in the shape of the frame, or `size`. Raises
    UsageError for a short name that is close to one of `MODELS`, ExpertError where there is no such checkpoint,
    BuildError where it does something else.
    """
    expert = _expert(_resolved(model))
    preparation = expert.preparation
    if preparation.pad:
        raise BuildError(f"{model} fills its pictures up, which no deploy graph does.", hint="Give another model.")
    multiple = preparation.multiple if preparation.multiple > 1 else MULTIPLE
    size = size or _same_pixels(preparation.target(*frame), frame, multiple)
    if any(side % multiple for side in size):
        raise UsageError(
            f"{model} takes sides that are multiples of {multiple}, not {size[1]}x{size[0]}.",
            hint=f"Take {_by(_rounded(size, multiple))}.",
        )
    modality = expert.produces({})
    network = _Answer(expert.load()).eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preparation.mean, preparation.std))
    with torch.no_grad():
        answer = network(torch.zeros(1, 3, *size))
    if answer.shape[1] != modality.features:
        raise BuildError(
            f"{model} answers with {answer.shape[1]} channels where its configuration has {modality.features}.",
            hint="The checkpoint is broken, or for another task.",
        )
    return Deployable(
        name=plain_name(model if model in MODELS else Path(model).name),
        network=network,
        mean=mean,
        std=std,
        outputs=(modality,),
        stride=max(1, round(size[0] / answer.shape[2])),
        input_size=size,
        multiple=multiple,
        statistics={modality.name: {"mean": [0.0], "std": [1.0]}} if modality.kind is Kind.DEPTH else {},
        provenance={"model": expert.checkpoint.name, "checkpoint": {"weights": expert.identity}},
    )


def _resolved(model: str) -> str:
    if model in MODELS:
        return MODELS[model]
    # What has no slash and is no folder can only be a short name that was misspelt, or a folder that is not there.
    if re.fullmatch(r"[\w.-]+", model) and not Path(model).exists():
        raise UsageError(
            f"There is no model {model!r}.",
            hint=f"{closest(model, MODELS)} By name: {', '.join(_families())}; or OWNER/NAME, or a folder.",
        )
    return model


def _families() -> list[str]:
    return [name for name in MODELS if not re.fullmatch(r"segformer-b[1-5].*", name)]


def _expert(name: str) -> PretrainedDepth | PretrainedLabels:
    from edgekit_experts.learned.checkpoint import Checkpoint
    from edgekit_experts.learned.pretrained import PretrainedDepth, PretrainedLabels

    config = Checkpoint(name).config
    what = " ".join(getattr(config, "architectures", None) or ())
    if "DepthEstimation" in what:
        return PretrainedDepth(name, device="cpu")
    if "SemanticSegmentation" in what or "UniversalSegmentation" in what or "ForInstanceSegmentation" in what:
        return PretrainedLabels(name, device="cpu")
    raise BuildError(
        f"{name} is made for something else than depth or semantic segmentation ({what or config.model_type}).",
        hint="Give a checkpoint whose configuration names ...ForDepthEstimation or ...ForSemanticSegmentation.",
    )


class _Answer(nn.Module):
    """`(1, 3, h, w)` to `(1, features, h', w')`: depth comes without a channel of its own."""

    def __init__(self, module: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.module = module

    def forward(self, picture: Tensor) -> Tensor:
        answer: Tensor = self.module(picture)
        return answer.unsqueeze(1) if answer.dim() == 3 else answer


def _same_pixels(published: Size, frame: Size, multiple: int) -> Size:
    """As many pixels as `published`, in the shape of the frame: nothing is distorted, and it takes as long."""
    area, shape = published[0] * published[1], frame[0] / frame[1]
    return _rounded((round(math.sqrt(area * shape)), round(math.sqrt(area / shape))), multiple)


def _rounded(size: Size, multiple: int) -> Size:
    height, width = (max(multiple, round(side / multiple) * multiple) for side in size)
    return height, width


def _by(size: Size) -> str:
    return f"{size[1]}x{size[0]}"
