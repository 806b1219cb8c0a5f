"""The `edge` family: RGB students designed for the latency of compiled INT8.

What made other small networks slow on VNNI CPUs and on TensorRT was measured before this one was drawn:
work at full and half resolution, dilated and transposed convolutions, concatenations (a copy each), activations
that do not fuse. So: two strided convolutions reach 1/4 resolution at once, everything after is a plain 3×3 or
1×1 convolution with ReLU, skips are additions, up-sampling is nearest by two, logits come out at 1/4.

While training every 3×3 has a 1×1 branch and, where shapes allow, an identity branch beside it (RepVGG,
arXiv 2101.03697); `fuse` folds them, with their batch norms, into the one convolution that is deployed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RepConv(nn.Module):
    """3×3 convolution + ReLU that trains as three parallel branches and deploys as one convolution."""

    def __init__(self, cin: int, cout: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv3 = nn.Conv2d(cin, cout, 3, stride=stride, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(cout)
        self.conv1 = nn.Conv2d(cin, cout, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(cout)
        self.norm0 = nn.BatchNorm2d(cin) if cin == cout and stride == 1 else None
        self.fused: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.fused is not None:
            return F.relu(self.fused(x))
        # The stride is taken by slicing: the backward pass of a strided 1×1 convolution in channels-last layout with
        # fewer than 16 input channels writes past its buffers in PyTorch 2.13 on CPUs.
        y = self.norm3(self.conv3(x)) + self.norm1(self.conv1(x[..., :: self.stride, :: self.stride]))
        if self.norm0 is not None:
            y = y + self.norm0(x)
        return F.relu(y)

    @torch.no_grad()
    def fuse(self) -> None:
        """Folds all branches into one 3×3 convolution with bias; for inference only."""
        kernel, bias = _folded(self.conv3.weight, self.norm3)
        kernel1, bias1 = _folded(self.conv1.weight, self.norm1)
        kernel = kernel + F.pad(kernel1, (1, 1, 1, 1))
        bias = bias + bias1
        if self.norm0 is not None:
            identity = torch.eye(self.conv3.in_channels, device=kernel.device, dtype=kernel.dtype)
            kernel0, bias0 = _folded(identity[:, :, None, None], self.norm0)
            kernel = kernel + F.pad(kernel0, (1, 1, 1, 1))
            bias = bias + bias0
        fused = nn.Conv2d(self.conv3.in_channels, self.conv3.out_channels, 3, self.stride, padding=1)
        fused = fused.to(kernel)
        fused.weight.copy_(kernel)
        assert fused.bias is not None
        fused.bias.copy_(bias)
        self.fused = fused
        del self.conv3, self.norm3, self.conv1, self.norm1
        self.norm0 = None


def _folded(kernel: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return kernel * scale[:, None, None, None], norm.bias - norm.running_mean * scale


@dataclass(frozen=True)
class EdgeShape:
    """Channels at 1/2, 1/4, 1/8, 1/16 and 1/32 resolution and the number of 3×3 layers at the last three."""

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int]


SHAPES = {
    "edge-150k": EdgeShape((12, 24, 32, 40, 48), (2, 2, 1)),
    "edge-430k": EdgeShape((16, 32, 48, 64, 64), (2, 3, 2)),
    "edge-900k": EdgeShape((16, 32, 64, 96, 128), (2, 3, 1)),
}


class Edge(nn.Module):
    """`(N, in_channels, H, W)` to logits `(N, out_channels, H/4, W/4)`, rounded up for odd sizes."""

    stride = 4

    def __init__(self, in_channels: int, out_channels: int, *, shape: EdgeShape) -> None:
        super().__init__()
        w2, w4, w8, w16, w32 = shape.widths
        n8, n16, n32 = shape.depths
        self.stem = nn.Sequential(RepConv(in_channels, w2, stride=2), RepConv(w2, w4, stride=2))
        self.stage8 = _stage(w4, w8, n8)
        self.stage16 = _stage(w8, w16, n16)
        self.stage32 = _stage(w16, w32, n32)
        self.context = nn.Conv2d(w32, w32, 1)
        self.lateral16, self.down16 = nn.Conv2d(w16, w16, 1), nn.Conv2d(w32, w16, 1)
        self.refine16 = RepConv(w16, w16)
        self.lateral8, self.down8 = nn.Conv2d(w8, w8, 1), nn.Conv2d(w16, w8, 1)
        self.refine8 = RepConv(w8, w8)
        self.lateral4, self.down4 = nn.Conv2d(w4, w4, 1), nn.Conv2d(w8, w4, 1)
        self.refine4 = RepConv(w4, w4)
        self.head = nn.Conv2d(w4, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x4 = self.stem(x)
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        x32 = self.stage32(x16)
        # One number per channel for the whole picture: what kind of scene this is.
        x32 = F.relu(x32 + self.context(x32.mean(dim=(2, 3), keepdim=True)))
        y = self.refine16(F.relu(self.lateral16(x16) + _twice(self.down16(x32), x16)))
        y = self.refine8(F.relu(self.lateral8(x8) + _twice(self.down8(y), x8)))
        y = self.refine4(F.relu(self.lateral4(x4) + _twice(self.down4(y), x4)))
        out: Tensor = self.head(y)
        return out

    def fuse(self) -> Edge:
        """Folds every training branch; call on a network in eval mode, before export."""
        for module in list(self.modules()):
            if isinstance(module, RepConv) and module.fused is None:
                module.fuse()
        return self


def _stage(cin: int, cout: int, depth: int) -> nn.Sequential:
    return nn.Sequential(RepConv(cin, cout, stride=2), *(RepConv(cout, cout) for _ in range(depth)))


def _twice(x: Tensor, like: Tensor) -> Tensor:
    """Nearest up-sampling by two, cropped to the size of `like` where an odd size was rounded up."""
    x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    height, width = like.shape[-2:]
    return x if x.shape[-2:] == (height, width) else x[..., :height, :width]
