"""How camera bytes become what a network was trained to see: the first part of the deploy graph.

Channel order and normalisation go into the first convolution where there is one (`fold`), with a border for CPUs
(`BorderedInput`; `export.py` says what that saves). The border is of a CPU's making. On a GPU a picture that is
joined to one is a copy, while converting and subtracting the mean are one pass with the transposition, after which zero
padding means the mean colour again, and which gives numbers on both sides of zero as signed INT8 wants them:
`CentredInput`, for TensorRT.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.deployable import Deployable, Size

# What takes the normalisation into a network's first convolution, in place, and gives what remains to be done before
# it; None, and nothing changed, where the network has no such convolution.
Fold = Callable[[nn.Module, Deployable, Size], nn.Module | None]


class NormalisedInput(nn.Module):
    """Channel order, resizing and normalisation as operations of their own: always right."""

    mean: Tensor
    scale: Tensor

    def __init__(self, source: Deployable, input_size: Size, network_size: Size) -> None:
        super().__init__()
        self.size = None if input_size == network_size else network_size
        self.register_buffer("mean", source.mean.clone())
        self.register_buffer("scale", 1.0 / source.std)

    def forward(self, image: Tensor) -> Tensor:
        rgb = network_rgb(image, self.size)
        return (rgb - self.mean) * self.scale


class BorderedInput(nn.Module):
    """A border in the mean colour, for a first convolution that has everything else in its weights."""

    top: Tensor | None
    bottom: Tensor | None
    left: Tensor | None
    right: Tensor | None

    def __init__(self, mean: Tensor, input_size: Size, border: tuple[int, int, int, int]) -> None:
        super().__init__()
        left, right, top, bottom = border
        height, width = input_size[0] + top + bottom, input_size[1]
        # uint8: half a grey level at most from the exact mean, and only in the border.
        colour = mean.round().clamp(0, 255).to(torch.uint8).view(1, 1, 1, 3)
        for name, rows in (("top", top), ("bottom", bottom)):
            self.register_buffer(name, colour.repeat(1, rows, width, 1) if rows else None)
        for name, columns in (("left", left), ("right", right)):
            self.register_buffer(name, colour.repeat(1, height, columns, 1) if columns else None)

    def forward(self, image: Tensor) -> Tensor:
        image = _joined(self.top, image, self.bottom, dim=1)
        image = _joined(self.left, image, self.right, dim=2)
        return image.permute(0, 3, 1, 2).float()

    @classmethod
    def fold(cls, network: nn.Module, source: Deployable, input_size: Size) -> BorderedInput | None:
        """Folds into the network's first convolution, in place; None, and nothing changed, if it has none.

        Float RGB normalised by (x - mean) / std becomes bytes in BGR order, for the same result.
        """
        first = _first_convolution(network, input_size)
        if first is None:
            return None
        mean = source.mean.flip(1)
        _fold_scale(first, source)
        with torch.no_grad():
            bias = first.bias if first.bias is not None else torch.zeros(first.out_channels)
            first.bias = nn.Parameter(bias - (first.weight * mean).sum(dim=(1, 2, 3)))
        top, bottom = _border(first, input_size, axis=0)
        left, right = _border(first, input_size, axis=1)
        first.padding = (0, 0)
        return cls(mean, input_size, (left, right, top, bottom))


class CentredInput(nn.Module):
    """The mean subtracted, for a first convolution that has order and scale of the channels in its weights."""

    mean: Tensor

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.view(1, 1, 1, 3))

    def forward(self, image: Tensor) -> Tensor:
        return (image.float() - self.mean).permute(0, 3, 1, 2)

    @classmethod
    def fold(cls, network: nn.Module, source: Deployable, input_size: Size) -> CentredInput | None:
        """As `BorderedInput.fold`; the convolution keeps its zero padding and its bias."""
        first = _first_convolution(network, input_size)
        if first is None:
            return None
        _fold_scale(first, source)
        return cls(source.mean.flip(1))


def _fold_scale(first: nn.Conv2d, source: Deployable) -> None:
    """Makes a convolution of (x - mean) / std in RGB one of x - mean in BGR, in place."""
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1) / source.std.flip(1))


def _joined(before: Tensor | None, image: Tensor, after: Tensor | None, dim: int) -> Tensor:
    parts = [part for part in (before, image, after) if part is not None]
    return torch.cat(parts, dim=dim) if len(parts) > 1 else image


def _first_convolution(network: nn.Module, size: Size) -> nn.Conv2d | None:
    """The one convolution that reads the network's input and nothing else, if it is a plain padded one."""
    readers: list[nn.Module] = []
    probe = torch.zeros(1, 3, *size)

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and inputs[0] is probe and not list(module.children()):
            readers.append(module)

    hooks = [module.register_forward_pre_hook(note) for module in network.modules()]
    try:
        with torch.no_grad():
            network(probe)
    finally:
        for hook in hooks:
            hook.remove()
    if len(readers) != 1 or not isinstance(readers[0], nn.Conv2d):
        return None
    first = readers[0]
    plain = first.groups == 1 and first.padding_mode == "zeros" and not isinstance(first.padding, str)
    return first if plain else None


def _border(conv: nn.Conv2d, size: Size, axis: int) -> tuple[int, int]:
    """Rows (or columns) that the convolution's padding really reads before and after the picture."""
    padding, stride = int(conv.padding[axis]), conv.stride[axis]
    reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
    steps = (size[axis] + 2 * padding - reach) // stride
    return padding, max(0, steps * stride + reach - padding - size[axis])


def network_rgb(image: Tensor, size: Size | None) -> Tensor:
    """uint8 BGR `[1, H, W, 3]` as float RGB `[1, 3, h, w]`, 0..255, at `size` (or unchanged)."""
    rgb = image.permute(0, 3, 1, 2).flip(1).float()
    return rgb if size is None else F.interpolate(rgb, size=size, mode="bilinear", align_corners=False)
