"""Boundaries of everything that a Segment Anything network can tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.expert import Batch
from edgekit_experts.learned.compiled import Precision
from edgekit_experts.learned.pretrained import Pretrained
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]

_PROMPTS = 16  # at a time: the decoder holds a copy of the picture's features for each of them


class PretrainedMasks(Pretrained):
    """Outlines of the masks of a SAM network: RGB frame to uint8 (H, W, 1), 0 (none) to 255 (crisp).

    Each point of a regular grid of `points` × `points` is a prompt, which the network answers with three masks; those
    that it trusts less than `quality` (0 to 1, the overlap that it predicts with a real object) are dropped. A pixel's
    value is the steepest rise of a mask's probability over it, for masks whose outline runs there. Method: Kirillov
    et al., Segment Anything, 2023, section 7.2 (edge detection with 16 × 16 points), without its normalisation by the
    frame's maximum, so that frames compare. `model` is a checkpoint's name or folder, of SAM (`facebook/sam-vit-base`,
    large, huge) or SAM 2 (`facebook/sam2.1-hiera-tiny`; Ravi et al., 2024). `precision` f32 or bf16 (CPU); `device`
    auto, cpu or cuda. Seconds to tens of seconds a frame on a CPU; half of the `points` are a quarter of the prompts.

    Outlines rather than coloured regions: masks have no class and no number that lasts from one frame to the next,
    so a network that learns from colours would learn how they were dealt out. Where things end is the same in every
    order of the masks.
    """

    makes = "edges"
    weights_from = "facebook/sam-vit-base"

    def __init__(
        self,
        model: str = "",
        points: int = 16,
        quality: float = 0.88,
        precision: Precision = "f32",
        device: str = "auto",
    ) -> None:
        if not 1 <= points <= 64 or not 0 <= quality <= 1:
            raise ExpertError(
                f"pretrained_masks: points {points}, quality {quality} make no sense.",
                hint="points 1 to 64, quality 0 to 1.",
            )
        super().__init__(model, precision, device)
        self.points, self.quality = points, quality

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        kind = self.checkpoint.config.model_type
        if kind not in ("sam", "sam2", "sam2_video"):
            raise ExpertError(
                f"{self.checkpoint.name!r} is {kind}, not SAM or SAM 2.", hint=f"Such as {self.weights_from}."
            )
        return Modality("boundaries", Kind.EDGES, 1, "uint8", (0, 255))

    def compute(self, batch: Batch) -> Array:
        return np.stack([self._boundaries(frame) for frame in batch.frames])[..., None]

    def _boundaries(self, frame: Array) -> Array:
        size = self.preparation.target(*frame.shape[:2])
        tensor = self.preparation.tensor(frame, size)
        features = self._network("sam_encoder", self._encoder, tensor.shape)(tensor)
        shapes = [feature.shape for feature in features]
        decoder = self._network("sam_decoder", self._decoder, (1,), (1, _PROMPTS, 1, 2), *shapes)
        least = np.array([self.quality], np.float32)
        strongest = np.maximum.reduce([decoder(least, prompts, *features)[0] for prompts in self._prompts(size)])
        canvas = cv2.resize(strongest, tensor.shape[:1:-1], interpolation=cv2.INTER_LINEAR)[: size[0], : size[1]]
        grown = cv2.resize(canvas, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(np.rint(255 * np.clip(grown, 0, 1)), np.uint8)

    def _prompts(self, size: tuple[int, int]) -> list[Array]:
        """The grid over a picture of this size, (x, y) in its pixels, `(1, _PROMPTS, 1, 2)` at a time."""
        step = (np.arange(self.points, dtype=np.float32) + 0.5) / self.points
        grid = np.stack(np.meshgrid(step * size[1], step * size[0]), axis=-1).reshape(-1, 2)
        # The last prompt again where the last group is short: the strongest of the same is the same.
        grid = np.pad(grid, [(0, -len(grid) % _PROMPTS), (0, 0)], mode="edge")
        return list(grid.reshape(-1, 1, _PROMPTS, 1, 2))

    def _encoder(self) -> Any:
        import torch

        class Encoder(torch.nn.Module):
            def __init__(self, model: Any) -> None:
                super().__init__()
                self.model = model

            def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, ...]:
                features = self.model.get_image_embeddings(picture)
                return (features,) if isinstance(features, torch.Tensor) else tuple(features)

        return Encoder(self._model()).eval()

    def _decoder(self) -> Any:
        import torch

        class Decoder(torch.nn.Module):
            def __init__(self, model: Any) -> None:
                super().__init__()
                self.model = model
                smooth, slope = torch.tensor([[0.25, 0.5, 0.25]]), torch.tensor([[-1.0, 0.0, 1.0]])
                self.register_buffer("sobel", torch.stack([smooth.T @ slope, slope.T @ smooth])[:, None])

            def forward(self, least: torch.Tensor, prompts: torch.Tensor, *features: torch.Tensor) -> torch.Tensor:
                known = features[0] if len(features) == 1 else list(features)
                answer = self.model(image_embeddings=known, input_points=prompts, multimask_output=True)
                trusted = answer.iou_scores.flatten() >= least
                strongest: torch.Tensor = _outlines(answer.pred_masks.flatten(0, 2), trusted, self.sobel)
                return strongest

        return Decoder(self._model()).eval()

    def _model(self) -> Any:
        from transformers import AutoModelForMaskGeneration

        return self.checkpoint.load(AutoModelForMaskGeneration)


def _outlines(masks: Any, trusted: Any, sobel: Any) -> Any:
    """The strongest outline `(h, w)` of the trusted ones of mask logits `(M, h, w)`; 1 is a step from 0 to 1."""
    from torch.nn import functional as F

    probability = masks.float().sigmoid()[:, None]
    gradient = F.conv2d(F.pad(probability, (1, 1, 1, 1), mode="replicate"), sobel)
    inside = (probability > 0.5).float()
    outline = F.max_pool2d(inside, 3, 1, 1) + F.max_pool2d(-inside, 3, 1, 1)
    strength = gradient.square().sum(dim=1).sqrt() * outline[:, 0] * trusted.float()[:, None, None]
    return strength.amax(dim=0).clamp(max=1)
