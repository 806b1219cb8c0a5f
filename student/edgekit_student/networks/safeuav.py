"""SafeUAV: the network that PHG-MAE and its published students use (arXiv 2510.10068).

An encoder of nine 3×3 blocks down to 1/8 resolution, six dilated blocks whose outputs are summed, and a
decoder with skips. Kept as the papers' baseline; parameter counts match the published ones exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DILATIONS = (1, 2, 4, 8, 16, 32)


def _block(cin: int, cout: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, stride=stride, padding=dilation, dilation=dilation),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
    )


def _up(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(cin, cout, 3, stride=2, padding=1, output_padding=1),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
    )


def _pad_like(x: Tensor, skip: Tensor) -> Tensor:
    """Pads or crops to the skip's size: odd sizes come back from 1/8 a few pixels off."""
    return F.pad(x, (0, skip.shape[-1] - x.shape[-1], 0, skip.shape[-2] - x.shape[-2]))


class SafeUAV(nn.Module):
    """`(N, in_channels, H, W)` to `(N, out_channels, H, W)`; `width` is the papers' f (6, 10, 16, 32)."""

    stride = 1

    def __init__(self, in_channels: int, out_channels: int, *, width: int) -> None:
        super().__init__()
        f = width
        self.encoder1 = _block(in_channels, f)
        self.encoder2 = nn.Sequential(_block(f, f), _block(f, f, stride=2))
        self.encoder3 = _block(f, 2 * f)
        self.encoder4 = nn.Sequential(_block(2 * f, 2 * f), _block(2 * f, 2 * f, stride=2))
        self.encoder5 = _block(2 * f, 4 * f)
        self.encoder6 = nn.Sequential(_block(4 * f, 4 * f), _block(4 * f, 4 * f, stride=2))
        self.dilated = nn.ModuleList(_block(4 * f if d == 1 else 8 * f, 8 * f, dilation=d) for d in DILATIONS)
        self.up3, self.decoder3 = _up(8 * f, 4 * f), _block(8 * f, 4 * f)
        self.up2, self.decoder2 = _up(4 * f, 2 * f), _block(4 * f, f)
        self.up1, self.decoder1 = _up(f, f), _block(2 * f, f)
        self.head = nn.Conv2d(f, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip1 = self.encoder1(x)
        skip2 = self.encoder3(self.encoder2(skip1))
        skip3 = self.encoder5(self.encoder4(skip2))
        x = self.encoder6(skip3)
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for block in self.dilated:
            x = block(x)
            total = total + x
        x = self.decoder3(torch.cat((_pad_like(self.up3(total), skip3), skip3), dim=1))
        x = self.decoder2(torch.cat((_pad_like(self.up2(x), skip2), skip2), dim=1))
        x = self.decoder1(torch.cat((_pad_like(self.up1(x), skip1), skip1), dim=1))
        out: Tensor = self.head(x)
        return out
