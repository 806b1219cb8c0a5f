"""PHG-MAE: a multi-modal masked autoencoder over whole modalities (arXiv 2510.10068).

All inputs, concatenated on the channel axis, with masked modalities as zeros, go through one network that
predicts all outputs at once. Each random mask is a different path through the hyper-graph of modalities;
averaging the predictions of many is the ensemble that teaches the students.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit_runtime.errors import CheckpointError, UsageError
from edgekit_runtime.modality import Modality
from edgekit_student.checkpoint import CheckpointConfig, read_config, restore, save_checkpoint
from edgekit_student.encoding import decode, encode_into, mirrored, unmirrored
from edgekit_student.masking import check_masking, hidden_share, sample_masks, sample_patches
from edgekit_student.networks import create_network, deployed
from edgekit_student.settings import Masking
from edgekit_student.weighting import LearnedWeights


class PHGMAE(nn.Module):
    """The autoencoder with its description."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.config = config
        try:
            target = config.network["target"]
            self._target = next(m for m in config.outputs if m.name == target) if target else None
            self._masking = Masking.model_validate(config.network["masking"])
            self._names = [modality.name for modality in config.inputs]
            check_masking(self._masking, self._names)
        except (KeyError, StopIteration, ValueError, UsageError) as error:
            raise CheckpointError(
                f"The checkpoint does not say how its PHG-MAE works: {error!r}.", hint="Train it again."
            ) from error
        self.network = create_network(
            config.network["name"],
            sum(modality.features for modality in config.inputs),
            sum(modality.features for modality in config.outputs),
        )
        self.stride: int = self.network.stride  # type: ignore[assignment]
        # Only while it is trained: what is saved and loaded has none.
        self.weighting: LearnedWeights | None = None

    @property
    def target(self) -> Modality:
        """The labels that students learn. Raises UsageError where it predicts none: others may only begin with it."""
        if self._target is None:
            raise UsageError(
                "This PHG-MAE predicts no labels.",
                hint="Begin another training with its weights: `edgekit train DATA --start FOLDER`, or `distill`.",
            )
        return self._target

    def masks(
        self,
        count: int,
        generator: torch.Generator | None = None,
        *,
        present: Tensor | None = None,
        progress: float = 1.0,
    ) -> Tensor:
        """Random masks `(count, inputs)` as this network is trained with; True where visible.

        `present`, bool `(count, inputs)` or `(inputs,)`, says which inputs there are; `progress`, 0..1, how much of
        the training is done, for masks that are scheduled.
        """
        return sample_masks(
            count,
            self._names,
            hide=hidden_share(self._masking, self._names, progress),
            visible=self._masking.visible,
            always_visible=self._masking.always_visible,
            never_visible=self._masking.never_visible,
            present=present,
            generator=generator,
        )

    def patches(self, count: int, size: tuple[int, int], generator: torch.Generator | None = None) -> Tensor | None:
        """Random patches that a training shows of frames of a `size` (height, width); see `sample_patches`."""
        return sample_patches((count, len(self._names)), size, self._masking, generator)

    def everything(self) -> Tensor:
        """The mask `(1, inputs)` of the papers' 1All: all visible, but for what must never be."""
        return torch.tensor([[name not in self._masking.never_visible for name in self._names]])

    def forward(
        self, sample: Mapping[str, Tensor], visible: Tensor, patches: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Raw outputs by modality name, `(N, features, H/stride, W/stride)`.

        `sample` holds stored arrays `{name: (N, H, W, C)}` of the inputs, `visible` is `(N, inputs)` bool, `patches`
        `(N, inputs, rows, columns)` what is seen of them, in patches of the size that the masking has.
        """
        encoded = self._encode(sample)
        if patches is not None:
            self._cover(encoded, patches)
        return self._masked(encoded, visible)

    def _cover(self, encoded: Tensor, patches: Tensor) -> None:
        """Zeroes what is hidden of each input, in place."""
        height, width = encoded.shape[-2:]
        side = self._masking.patch_size
        parts = torch.split(encoded, [m.features for m in self.config.inputs], dim=1)
        for part, seen in zip(parts, patches.to(encoded.device).unbind(dim=1), strict=True):
            pixels = seen.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)[:, None, :height, :width]
            part.masked_fill_(~pixels, 0.0)

    def _encode(self, sample: Mapping[str, Tensor]) -> Tensor:
        first = sample[self.config.inputs[0].name]
        device = first.device.type
        # Under autocast the first convolution would halve the precision anyway: before it is half the memory.
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        widths = [modality.features for modality in self.config.inputs]
        encoded = torch.empty(*first.shape[:3], sum(widths), dtype=dtype, device=first.device)
        for modality, part in zip(self.config.inputs, torch.split(encoded, widths, dim=-1), strict=True):
            encode_into(modality, sample[modality.name], self.config.statistics, part)
        return encoded.permute(0, 3, 1, 2)

    def _masked(self, encoded: Tensor, visible: Tensor) -> dict[str, Tensor]:
        """The outputs for masked inputs; masks `encoded` in place."""
        parts = torch.split(encoded, [m.features for m in self.config.inputs], dim=1)
        for sample, index in (~visible).nonzero().tolist():
            parts[index][sample].zero_()
        output = self.network(encoded)
        predictions = torch.split(output, [m.features for m in self.config.outputs], dim=1)
        return {m.name: part for m, part in zip(self.config.outputs, predictions, strict=True)}

    @torch.no_grad()
    def members(
        self, sample: Mapping[str, Tensor], masks: Tensor, *, outputs: Sequence[str], mirror: bool = False
    ) -> Iterator[dict[str, Tensor]]:
        """The decoded outputs of each member of an ensemble, `(N, features, h, w)` at network resolution.

        There is one for each of `masks` `(members, inputs)`; with `mirror` each is followed, after all, by one that
        saw the mirrored frame, turned back.
        """
        described = [modality for modality in self.config.outputs if modality.name in outputs]
        for flipped in (False, True) if mirror else (False,):
            view = self._encode(
                {m.name: mirrored(m, sample[m.name]) for m in self.config.inputs} if flipped else sample
            )
            for mask in masks:
                raw = self._masked(view.clone(), mask.expand(len(view), -1))
                decoded = {m.name: decode(m, raw[m.name], self.config.statistics) for m in described}
                yield {m.name: unmirrored(m, decoded[m.name]) for m in described} if flipped else decoded

    def predict(self, sample: Mapping[str, Tensor], masks: Tensor, *, mirror: bool = False) -> Tensor:
        """Class probabilities of the target, averaged over `masks` `(members, inputs)`, at network resolution.

        One mask with all inputs visible is the papers' 1All, one random mask 1Rand, many NRand. With `mirror`
        each member also sees the mirrored frame. `ensemble.predict` does more.
        """
        name = self.target.name
        parts = self.members(sample, masks, outputs=[name], mirror=mirror)
        total = next(parts)[name]
        for part in parts:
            total = total + part[name]
        return total / (len(masks) * (2 if mirror else 1))

    def save(self, folder: Path) -> None:
        save_checkpoint(folder, self.state_dict(), self.config)


def upsample(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear to `size` (height, width); untouched when it is that size already."""
    if tuple(values.shape[-2:]) == size:
        return values
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)


def load_phg_mae(folder: Path, device: torch.device | str = "cpu") -> PHGMAE:
    """A PHG-MAE in its inference form: branches folded, ready to predict, not to train on.

    Raises CheckpointError when it is none, or its weights do not fit.
    """
    config = read_config(folder)
    if config.kind != "phg-mae":
        raise CheckpointError(
            f"{folder} holds a {config.kind} checkpoint, not a PHG-MAE run.",
            hint="Train one first: edgekit train DATA -o RUN",
        )
    model = PHGMAE(config)
    restore(model, folder)
    deployed(model.network)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()
