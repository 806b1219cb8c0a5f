"""The losses of each modality kind; every loss is a mean over valid pixels, so missing values cost nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit_runtime.modality import Kind, Modality
from edgekit_student.encoding import Encoded, Statistics, decode

# What fits each kind; the first is what is taken when nobody says otherwise.
LOSSES: Mapping[Kind, tuple[str, ...]] = {
    Kind.IMAGE: ("l1", "l2"),
    Kind.LABELS: ("cross-entropy",),
    Kind.DEPTH: ("l1", "l2", "scale-invariant"),
    Kind.NORMALS: ("cosine",),
    Kind.FLOW: ("end-point",),
    Kind.EDGES: ("bce", "focal"),
    Kind.MASK: ("bce", "focal"),
}


def loss_size(frame: Tensor, stride: int) -> tuple[int, int]:
    """(height, width) at which labels of a `frame` `(N, C, H, W)` are compared: half of it, rounded up, whatever
    finer or coarser logits the network has; a network without a stride is compared at each pixel.
    """
    height, width = frame.shape[-2:]
    return (height, width) if stride == 1 else (-(-height // 2), -(-width // 2))


def modality_loss(
    modality: Modality,
    output: Tensor,
    target: Encoded,
    class_weights: Tensor | None = None,
    certainty: Tensor | None = None,
    *,
    loss: str | None = None,
    statistics: Statistics | None = None,
) -> Tensor:
    """Scalar loss of `output` `(N, features, H, W)` against the encoded target of the same size.

    `certainty` `(N, 1, H, W)` says how much each pixel counts. `loss` is one of `LOSSES` of the modality's kind:

        cross-entropy    where `class_weights` `(classes,)` says how much each class counts
        cosine           one minus it
        bce, focal       binary cross-entropy on logits; focal counts what is known already less
        end-point        distance of flow vectors
        l1, l2           both sides standardised
        scale-invariant  of the logarithm of depth in stored units, which `statistics` says; see there
    """
    loss = loss or LOSSES[modality.kind][0]
    weight = target.valid.float() if certainty is None else target.valid * certainty
    match loss:
        case "cross-entropy":
            per_pixel = _cross_entropy(output, target.values, class_weights)
        case "cosine":
            per_pixel = 1 - F.cosine_similarity(output, target.values, dim=1).unsqueeze(1)
        case "bce":
            per_pixel = F.binary_cross_entropy_with_logits(output, target.values, reduction="none").mean(1, True)
        case "focal":
            per_pixel = _focal(output, target.values).mean(dim=1, keepdim=True)
        case "end-point":
            per_pixel = torch.sqrt((output - target.values).square().sum(dim=1, keepdim=True) + 1e-6)
        case "l1":
            per_pixel = (output - target.values).abs().mean(dim=1, keepdim=True)
        case "l2":
            per_pixel = (output - target.values).square().mean(dim=1, keepdim=True)
        case "scale-invariant":
            assert statistics is not None
            return scale_invariant(modality, output, target, weight, statistics)
        case _:
            raise ValueError(f"there is no loss {loss!r}")
    return weighted_mean(per_pixel, weight)


def scale_invariant(
    modality: Modality, output: Tensor, target: Encoded, weight: Tensor, statistics: Statistics, *, share: float = 0.5
) -> Tensor:
    """How far the logarithm of depth is off, where an error of scale alone costs 1 - `share` of what it would.

    Per frame, with d the difference of the logarithms: mean(d^2) - `share` * mean(d)^2 (Eigen et al., arXiv
    1406.2283, equation 4, whose lambda is 0.5). Pixels whose true depth is not positive do not count. Below a
    hundredth of the mean depth the logarithm goes on as a straight line, so that depths predicted to be negative,
    which a network may, have a gradient.
    """
    table = statistics[modality.name]
    floor = max(table["mean"][0], table["std"][0]) / 100
    truth = decode(modality, target.values, statistics)
    weight = weight * (truth > 0)
    difference = _log(decode(modality, output.float(), statistics), floor) - _log(truth, floor)
    counted = weight.sum(dim=(1, 2, 3))
    mean = (weight * difference).sum(dim=(1, 2, 3)) / counted.clamp_min(1e-6)
    square = (weight * difference.square()).sum(dim=(1, 2, 3)) / counted.clamp_min(1e-6)
    return ((square - share * mean.square()) * counted).sum() / counted.sum().clamp_min(1.0)


def _log(depth: Tensor, floor: float) -> Tensor:
    return depth.clamp_min(floor).log() + (depth / floor - 1).clamp_max(0.0)


def _focal(logits: Tensor, truth: Tensor, *, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Focal loss (Lin et al., arXiv 1708.02002), with the authors' gamma and alpha, per value.

    What is known already counts |truth - probability|^gamma as much, which is also defined where the truth is a share
    (Li et al., arXiv 2006.04388).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    side = alpha * truth + (1 - alpha) * (1 - truth)
    return side * (truth - logits.sigmoid()).abs() ** gamma * entropy


def soft_cross_entropy(
    logits: Tensor,
    probabilities: Tensor,
    weight: Tensor,
    temperature: float,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Distillation loss (Hinton et al., arXiv 1503.02531): cross-entropy against the teacher's probabilities.

    `logits`, `probabilities` are `(N, C, H, W)`, `weight` `(N, 1, H, W)`; the teacher's distribution is sharpened
    or flattened by `temperature` as the student's is.
    """
    if temperature != 1.0:
        probabilities = probabilities.clamp_min(1e-6).log().div(temperature).softmax(dim=1)
    per_pixel = _cross_entropy(logits / temperature, probabilities, class_weights)
    return weighted_mean(per_pixel, weight) * temperature**2


def class_weights(frequencies: Tensor, balance: float) -> Tensor:
    """Weights `(classes,)` proportional to frequency^-`balance`, of mean 1 over the pixels that were counted.

    mIoU counts a rare class as much as a common one, cross-entropy does not: 0.5 is between the two. What is rarer
    than one pixel in a thousand weighs as if it were not, so that a few pixels never decide a step.
    """
    share = frequencies / frequencies.sum()
    weights = share.clamp_min(1e-3) ** -balance
    return weights / (weights * share).sum()


def _cross_entropy(logits: Tensor, probabilities: Tensor, class_weights: Tensor | None) -> Tensor:
    if class_weights is not None:
        probabilities = probabilities * class_weights.to(probabilities).view(1, -1, 1, 1)
    return -(probabilities * logits.log_softmax(dim=1)).sum(dim=1, keepdim=True)


def weighted_mean(per_pixel: Tensor, weight: Tensor) -> Tensor:
    """Mean of `(N, 1, H, W)` under weights of the same shape; zero where no pixel counts."""
    return (per_pixel * weight).sum() / weight.sum().clamp_min(1.0)


def pixel_certainty(stored: Tensor) -> Tensor:
    """Weights `(N, 1, H, W)`, 0..1, of a stored share `(N, H, W, 1)`: its square, so that two voters of three that
    agree count less than half of what three do.
    """
    share = stored.permute(0, 3, 1, 2).float()
    if not stored.dtype.is_floating_point:
        share = share / 255
    return share.nan_to_num(0.0).clamp(0, 1).square()
