"""Quantisation-aware fine-tuning: a student learns to say in INT8 what it says in float. No labels are needed.

A copy of the network computes as INT8 will (symmetric weights with a scale a channel, activations with a scale a
tensor, straight-through gradients: Jacob et al., arXiv 1712.05877) and is fitted to what the network itself says of the
frames that calibrate. Its weights are kept rounded, in float, and quantised after training as any others, so that every
engine can have them.

NNCF's fake quantisers for PyTorch were tried and left alone: at their first use they compile C++ where the build runs,
which ended in their time-out of a minute, and to turn them into plain PyTorch they need torchao.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from edgekit.console import progress
from edgekit.deployable import Deployable, Size
from edgekit.network_input import network_rgb
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.encoding import Encoded
from edgekit_student.losses import modality_loss

Frames = Sequence[npt.NDArray[np.uint8]]
BATCH = 2
LEARNING_RATE = 1e-4
TINY = 1e-9
# What NNCF has in INT8 of our networks; for convolutions, the axis of the weights' output channels.
CONVOLUTIONS = {F.conv2d: 0, F.conv_transpose2d: 1}
ADDITIONS = (torch.add, Tensor.add, Tensor.__add__)
# What a bundle carries: see `export.deploy_outputs`.
BUILT = (Kind.LABELS, Kind.DEPTH)


class FineTuning:
    """What was asked for, and the result once there is one: engines share it."""

    def __init__(self, steps: int, seed: int = 0) -> None:
        self.steps, self.seed = steps, seed
        self._result: Deployable | None = None

    @property
    def done(self) -> bool:
        return self._result is not None

    def of(self, source: Deployable, frames: Frames, size: Size) -> Deployable:
        """`source` with tuned weights, and how they came about in its provenance; trained at the first call only.

        `frames` are uint8 BGR `(H, W, 3)`, `size` is (height, width) at which the network works.
        """
        if self._result is None:
            digest = hashlib.sha256(b"".join(hashlib.sha256(frame.tobytes()).digest() for frame in frames)).hexdigest()
            told = {
                "steps": self.steps,
                "seed": self.seed,
                "batch": BATCH,
                "learning_rate": LEARNING_RATE,
                "frames": len(frames),
                "frames_sha256": digest,
            }
            pictures = [
                (network_rgb(torch.from_numpy(frame)[None], size) - source.mean) / source.std for frame in frames
            ]
            network = fine_tune(source, pictures, self.steps, self.seed)
            self._result = replace(source, network=network, provenance={**source.provenance, "fine_tuning": told})
        return self._result


def fine_tune(source: Deployable, pictures: Sequence[Tensor], steps: int, seed: int) -> nn.Module:
    """The inference form of a network with weights that lose less in INT8; `pictures` are normalised `(1, 3, h, w)`.

    Equal arguments give equal weights.
    """
    teacher = source.inference_network().requires_grad_(False)
    # Convolutions train 2.5 times faster in this layout, see `edgekit_student.fit`.
    network = source.inference_network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rng = np.random.default_rng(seed)
    int8 = Int8(network, pictures, source.std)
    with progress("Fine-tuning", steps) as advance:
        optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            picks = rng.choice(len(pictures), min(BATCH, len(pictures)), replace=False)
            batch = torch.cat([pictures[n].flip(-1) if rng.random() < 0.5 else pictures[n] for n in picks])
            loss = _distance(source.outputs, int8.call(network, batch), teacher(batch))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            advance(1, f"loss {loss.item():.4f}")
    int8.keep(network, pictures[0])
    plain: nn.Module = network.to(memory_format=torch.contiguous_format)
    return plain


def _distance(outputs: Sequence[Modality], found: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy with the probabilities of labels, and what else fits a kind, of channels `(N, features, h, w)`."""
    features = [modality.features for modality in outputs]
    total = found.new_zeros(())
    for modality, ours, theirs in zip(
        outputs, torch.split(found, features, dim=1), torch.split(wanted, features, dim=1), strict=True
    ):
        if modality.kind in BUILT:
            values = theirs.softmax(dim=1) if modality.taxonomy else theirs
            everywhere = torch.ones_like(values[:, :1], dtype=torch.bool)
            total = total + modality_loss(modality, ours, Encoded(values, everywhere))
    return total


class Int8(TorchFunctionMode):
    """Inside, convolutions and additions compute as NNCF has them in INT8, their inputs rounded.

    Made of a network and normalised pictures `(1, 3, h, w)` on which the ranges of its activations are found: least
    and greatest values, as means over all of them. The pictures themselves stay as they are: bytes stay bytes, and the
    weights that they meet are rounded as those of bytes, divided by `std`.
    """

    def __init__(self, network: nn.Module, pictures: Sequence[Tensor], std: Tensor) -> None:
        super().__init__()
        self._std = std
        self._keep = False
        self._seen: list[list[Tensor]] = []
        self._ranges: list[tuple[float, float]] = []
        with torch.no_grad():
            for picture in pictures:
                self.call(network, picture)
        means = (torch.stack(each).mean(dim=0).tolist() for each in self._seen)
        self._ranges = [(low, high) for low, high in means]

    def call(self, network: nn.Module, pictures: Tensor) -> Tensor:
        """What the network says; activations are known by their order."""
        self._place, self._pictures = 0, pictures
        with self:
            answer: Tensor = network(pictures)
        return answer

    @torch.no_grad()
    def keep(self, network: nn.Module, pictures: Tensor) -> None:
        """Leaves the weights rounded, in place, so that rounding them once more changes nothing.

        Where bytes come first it would: what it changes there, it changes times the mean colour.
        """
        self._keep = True
        self.call(network, pictures)
        self._keep = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in CONVOLUTIONS:
            values, weight, *others = args
            scale = self._std if values is self._pictures else torch.ones(())
            rounded = _rounded_weight(weight / scale, CONVOLUTIONS[func]) * scale
            if self._keep:
                weight.copy_(rounded)
            args = (self._rounded(values), rounded, *others)
        elif func in ADDITIONS:
            args = tuple(map(self._rounded, args))
        return func(*args, **(kwargs or {}))

    def _rounded(self, values: Any) -> Any:
        """Unsigned bytes where nothing is below zero, else signed ones."""
        if not isinstance(values, Tensor) or values.dim() != 4 or values is self._pictures:
            return values
        place, self._place = self._place, self._place + 1
        if not self._ranges:
            if place == len(self._seen):
                self._seen.append([])
            self._seen[place].append(torch.stack(values.aminmax()))
            return values
        low, high = self._ranges[place]
        if low >= 0:
            return torch.fake_quantize_per_tensor_affine(values, max(high, TINY) / 255, 0, 0, 255)
        return torch.fake_quantize_per_tensor_affine(values, max(-low, high) / 127, 0, -128, 127)


def _rounded_weight(weight: Tensor, channel: int) -> Tensor:
    others = [axis for axis in range(weight.dim()) if axis != channel]
    scale = weight.detach().abs().amax(dim=others).clamp_min(TINY) / 127
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, channel, -127, 127)
