"""PHG-MAE: a multi-modal masked autoencoder over whole modalities (arXiv 2510.10068).

All inputs, concatenated on the channel axis, with masked modalities as zeros, go through one network that
predicts all outputs at once. Each random mask is a different path through the hyper-graph of modalities;
averaging the predictions of many is the ensemble that teaches the students.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit_runtime.errors import CheckpointError
from edgekit_runtime.modality import Modality
from edgekit_student.checkpoint import CheckpointConfig, read_config, restore, save_checkpoint
from edgekit_student.encoding import decode, encode, mirrored
from edgekit_student.masking import sample_masks
from edgekit_student.networks import create_network, deployed
from edgekit_student.settings import Masking


class PHGMAE(nn.Module):
    """The autoencoder with its description; `target` is the labels modality that students learn."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.config = config
        try:
            self.target: Modality = next(m for m in config.outputs if m.name == config.network["target"])
            self._masking = Masking.model_validate(config.network["masking"])
        except (KeyError, StopIteration, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint does not say how its PHG-MAE works: {error!r}.", hint="Train it again."
            ) from error
        self.network = create_network(
            config.network["name"],
            sum(modality.features for modality in config.inputs),
            sum(modality.features for modality in config.outputs),
        )
        self.stride: int = self.network.stride  # type: ignore[assignment]

    def masks(self, count: int, generator: torch.Generator | None = None, *, present: Tensor | None = None) -> Tensor:
        """Random masks `(count, inputs)` as this network is trained with; True where visible.

        `present`, bool `(count, inputs)` or `(inputs,)`, says which inputs there are.
        """
        names = [modality.name for modality in self.config.inputs]
        return sample_masks(
            count,
            names,
            hide=self._masking.hide,
            always_visible=self._masking.always_visible,
            present=present,
            generator=generator,
        )

    def forward(self, sample: Mapping[str, Tensor], visible: Tensor) -> dict[str, Tensor]:
        """Raw outputs by modality name, `(N, features, H/stride, W/stride)`.

        `sample` holds stored arrays `{name: (N, H, W, C)}` of the inputs, `visible` is `(N, inputs)` bool.
        """
        return self._masked(self._encode(sample), visible)

    def _encode(self, sample: Mapping[str, Tensor]) -> Tensor:
        statistics = self.config.statistics
        device = sample[self.config.inputs[0].name].device.type
        # Under autocast the first convolution would halve the precision anyway: before it is half the memory.
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        parts = [encode(m, sample[m.name], statistics).values.to(dtype) for m in self.config.inputs]
        # Joined as (N, H, W, C), the order in memory of what is stored and of what convolutions like best.
        return torch.cat([part.permute(0, 2, 3, 1) for part in parts], dim=-1).permute(0, 3, 1, 2)

    def _masked(self, encoded: Tensor, visible: Tensor) -> dict[str, Tensor]:
        """The outputs for masked inputs; masks `encoded` in place."""
        parts = torch.split(encoded, [m.features for m in self.config.inputs], dim=1)
        for sample, index in (~visible).nonzero().tolist():
            parts[index][sample].zero_()
        output = self.network(encoded)
        predictions = torch.split(output, [m.features for m in self.config.outputs], dim=1)
        return {m.name: part for m, part in zip(self.config.outputs, predictions, strict=True)}

    @torch.no_grad()
    def predict(self, sample: Mapping[str, Tensor], masks: Tensor, *, mirror: bool = False) -> Tensor:
        """Class probabilities of the target, averaged over `masks` `(members, inputs)`, at network resolution.

        One mask with all inputs visible is the papers' 1All, one random mask 1Rand, many NRand. With `mirror`
        each member also sees the mirrored frame.
        """
        views = [self._encode(sample)]
        if mirror:
            views.append(self._encode({m.name: mirrored(m, sample[m.name]) for m in self.config.inputs}))
        total: Tensor | None = None
        for flipped, view in enumerate(views):
            for mask in masks:
                logits = self._masked(view.clone(), mask.expand(len(view), -1))[self.target.name]
                part = decode(self.target, logits, self.config.statistics)
                part = part.flip(-1) if flipped else part
                total = part if total is None else total + part
        assert total is not None
        return total / (len(views) * len(masks))

    def save(self, folder: Path) -> None:
        save_checkpoint(folder, self.state_dict(), self.config)


def upsample(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear to `size` (height, width); untouched when it is that size already."""
    if tuple(values.shape[-2:]) == size:
        return values
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)


def load_phg_mae(folder: Path) -> PHGMAE:
    """A PHG-MAE in its inference form, on the CPU: branches folded, ready to predict, not to train on.

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
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()
