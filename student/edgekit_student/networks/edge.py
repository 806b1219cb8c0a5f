"""The `edge` family: RGB students designed for the latency of compiled INT8.

What made other small networks slow on VNNI CPUs and on TensorRT was measured before this one was drawn:
work at full and half resolution, dilated and transposed convolutions, concatenations (a copy each), activations
that do not fuse. So: two strided convolutions reach 1/4 resolution at once, everything after is a plain 3×3 or
1×1 convolution with ReLU, skips are additions, up-sampling is nearest by two, logits come out at 1/4.

Logits at 1/4 lose what is thin: human labels of CamVid that went through 1/4 and back have an IoU of 65 for poles (94
in the mean), through 1/2 one of 91 (98). The `-s2` networks answer at 1/2 by a head of four times the channels at 1/4
whose outputs are the four pixels there (sub-pixel convolution, arXiv 1609.05158): no layer runs at 1/2.

A 3×3 kernel is trained as the identity plus what is learnt (DiracNets, arXiv 1706.00388), so the network has
skip connections that cost nothing when deployed, and little while training: parallel branches (RepVGG, arXiv
2101.03697), each with a batch norm, took twice the time for a step here. `fuse` folds kernel and batch norm into the
one convolution that is deployed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DiracConv(nn.Module):
    """3×3 convolution + batch norm + ReLU whose kernel learns what it adds to the identity, where shapes allow one."""

    def __init__(self, cin: int, cout: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(cin, cout, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(cout)
        self.identity = nn.Parameter(torch.ones(cout)) if cin == cout and stride == 1 else None
        self.fused: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.fused is not None:
            return F.relu(self.fused(x))
        y: Tensor = self.norm(F.conv2d(x, self._kernel(), stride=self.stride, padding=1))
        return F.relu(y)

    def _kernel(self) -> Tensor:
        if self.identity is None:
            return self.conv.weight
        return self.conv.weight + F.pad(torch.diag(self.identity)[:, :, None, None], (1, 1, 1, 1))

    @torch.no_grad()
    def fuse(self) -> None:
        """Folds identity and batch norm into one 3×3 convolution with bias; for inference only."""
        norm, kernel = self.norm, self._kernel()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        cout, cin = kernel.shape[:2]
        fused = nn.Conv2d(cin, cout, 3, self.stride, padding=1).to(kernel)
        fused.weight.copy_(kernel * scale[:, None, None, None])
        assert fused.bias is not None
        fused.bias.copy_(norm.bias - norm.running_mean * scale)
        self.fused = fused
        del self.conv, self.norm
        self.identity = None


@dataclass(frozen=True)
class EdgeShape:
    """Channels at 1/2, 1/4, 1/8, 1/16 and 1/32 resolution, the number of 3×3 layers at the last three, and the
    stride of the logits (4 or 2).
    """

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int]
    stride: int = 4


_SHAPES = {
    "edge-150k": EdgeShape((12, 24, 32, 40, 48), (2, 2, 1)),
    "edge-430k": EdgeShape((16, 32, 48, 64, 64), (2, 3, 2)),
    "edge-900k": EdgeShape((16, 32, 64, 96, 128), (2, 3, 1)),
}
SHAPES = _SHAPES | {f"{name}-s2": replace(shape, stride=2) for name, shape in _SHAPES.items()}


class Edge(nn.Module):
    """`(N, in_channels, H, W)` to logits `(N, out_channels, H/stride, W/stride)`, sides rounded up to multiples of 4.

    `shuffle` lays the channels of the head out as finer logits, (stride 4) nothing or (stride 2) four to a pixel.
    """

    def __init__(self, in_channels: int, out_channels: int, *, shape: EdgeShape) -> None:
        super().__init__()
        self.stride = shape.stride
        finer = 4 // shape.stride
        w2, w4, w8, w16, w32 = shape.widths
        n8, n16, n32 = shape.depths
        self.stem = nn.Sequential(DiracConv(in_channels, w2, stride=2), DiracConv(w2, w4, stride=2))
        self.stage8 = _stage(w4, w8, n8)
        self.stage16 = _stage(w8, w16, n16)
        self.stage32 = _stage(w16, w32, n32)
        self.context = nn.Conv2d(w32, w32, 1)
        self.lateral16, self.down16 = nn.Conv2d(w16, w16, 1), nn.Conv2d(w32, w16, 1)
        self.refine16 = DiracConv(w16, w16)
        self.lateral8, self.down8 = nn.Conv2d(w8, w8, 1), nn.Conv2d(w16, w8, 1)
        self.refine8 = DiracConv(w8, w8)
        self.lateral4, self.down4 = nn.Conv2d(w4, w4, 1), nn.Conv2d(w8, w4, 1)
        self.refine4 = DiracConv(w4, w4)
        self.head = nn.Conv2d(w4, out_channels * finer**2, 1)
        self.shuffle: nn.Module = nn.PixelShuffle(finer) if finer > 1 else nn.Identity()

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
        out: Tensor = self.shuffle(self.head(y))
        return out

    def fuse(self) -> Edge:
        """Folds every kernel and batch norm; call on a network in eval mode, before export."""
        for module in list(self.modules()):
            if isinstance(module, DiracConv) and module.fused is None:
                module.fuse()
        return self


def _stage(cin: int, cout: int, depth: int) -> nn.Sequential:
    return nn.Sequential(DiracConv(cin, cout, stride=2), *(DiracConv(cout, cout) for _ in range(depth)))


def _twice(x: Tensor, like: Tensor) -> Tensor:
    """Nearest up-sampling by two, cropped to the size of `like` where an odd size was rounded up."""
    x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    height, width = like.shape[-2:]
    return x if x.shape[-2:] == (height, width) else x[..., :height, :width]
