"""Depth by diffusion, through `diffusers`."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_experts.expert import Batch, Expert
from edgekit_experts.learned.checkpoint import first_line
from edgekit_experts.learned.compiled import Precision
from edgekit_experts.learned.hub import no_checkpoint, without_hub
from edgekit_experts.learned.network import Execution, Network
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]

_NETWORKS = ("unet", "vae", "text_encoder")


class MarigoldDepth(Expert):
    """Depth by denoising: RGB frame to float16 (H, W, 1), 0 (nearest) to 1 (farthest), affine-invariant.

    That is, true depth but for a scale and an offset that nobody knows, of each frame anew. Checkpoints that were
    trained on disparity give affine-invariant inverse depth, 1 nearest. `model` is the name or folder of a checkpoint
    of `MarigoldDepthPipeline`; `steps` of denoising and `size`, the longer side that is worked at, are as it was
    published with where they are 0; the median of `ensemble` answers is taken. The noise is decided by `seed` and the
    frame's number in its video. Method: Ke et al., Repurposing Diffusion-Based Image Generators for Monocular Depth
    Estimation, 2024.

    One frame at a time: seconds to minutes a frame on a CPU, where its networks run compiled. `precision` f32 or bf16
    (CPU); `device` auto, cpu or cuda.
    """

    deterministic = False
    makes = "depth"
    weights_from = "prs-eth/marigold-depth-v1-1"

    def __init__(
        self,
        model: str = "",
        steps: int = 0,
        ensemble: int = 1,
        seed: int = 0,
        size: int = 0,
        precision: Precision = "f32",
        device: str = "auto",
    ) -> None:
        if steps < 0 or ensemble < 1 or seed < 0 or size < 0 or size % 8:
            raise ExpertError(
                f"marigold_depth: steps {steps}, ensemble {ensemble}, seed {seed}, size {size} make no sense.",
                hint="steps >= 0, ensemble >= 1, seed >= 0, size a multiple of 8.",
            )
        self.model = model or self.weights_from
        self.steps, self.ensemble, self.seed, self.size = steps, ensemble, seed, size
        self.execution = Execution(precision, device)
        self._lock = threading.Lock()  # a pipeline keeps its place in the schedule in itself

    @property
    def identity(self) -> str:
        digest = hashlib.sha256()
        for path in sorted(self._folder.rglob("*")):
            if path.suffix in (".safetensors", ".json"):
                digest.update(path.relative_to(self._folder).as_posix().encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        index = json.loads((self._folder / "model_index.json").read_text(encoding="utf-8"))
        if index.get("_class_name") != "MarigoldDepthPipeline":
            raise ExpertError(
                f"{self.model!r} is a checkpoint of {index.get('_class_name')}, not of MarigoldDepthPipeline.",
                hint=f"Such as {self.weights_from}.",
            )
        unit = "affine-invariant inverse depth" if index.get("prediction_type") == "disparity" else "affine-invariant"
        return Modality("depth", Kind.DEPTH, 1, "float16", (0, 1), unit)

    def compute(self, batch: Batch) -> Array:
        with self._lock:
            answers = [self._depth(frame, batch.first + n) for n, frame in enumerate(batch.frames)]
        return np.concatenate(answers).astype(np.float16)

    def _depth(self, frame: Array, number: int) -> Array:
        import torch

        answer: Array = self._pipeline(
            frame,
            num_inference_steps=self.steps or None,
            ensemble_size=self.ensemble,
            processing_resolution=self.size or None,
            generator=torch.Generator("cpu").manual_seed(noise_seed(self.seed, number)),
        ).prediction
        return answer

    @cached_property
    def _pipeline(self) -> Any:
        import torch
        from diffusers import MarigoldDepthPipeline

        on_cuda = self.execution.on_cuda
        try:
            pipeline: Any = MarigoldDepthPipeline.from_pretrained(  # type: ignore[no-untyped-call]
                self._folder, use_safetensors=True, torch_dtype=torch.float16 if on_cuda else torch.float32
            )
        except (OSError, ValueError) as error:
            raise ExpertError(f"The checkpoint {self.model!r} cannot be loaded: {first_line(error)}") from error
        pipeline.set_progress_bar_config(disable=True)
        if on_cuda:
            return pipeline.to("cuda")
        unet, encoder, decoder = pipeline.unet, pipeline.vae.encoder, pipeline.vae.decoder
        denoise = self._compiled("unet", unet)
        unet.forward = lambda latent, step, encoder_hidden_states, return_dict: (
            denoise(latent, step.reshape(1).float(), encoder_hidden_states),
        )
        encoder.forward, decoder.forward = self._compiled("encoder", encoder), self._compiled("decoder", decoder)
        return pipeline

    def _compiled(self, name: str, part: Any) -> Callable[..., Any]:
        """What a part of the pipeline makes of tensors, compiled for whatever shapes they have."""
        import torch

        forward = part.forward
        networks: dict[tuple[torch.Size, ...], Network] = {}

        class Part(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.part = part

            def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
                answer = forward(*tensors)
                made: torch.Tensor = answer if isinstance(answer, torch.Tensor) else answer[0]
                return made

        def run(*tensors: torch.Tensor) -> torch.Tensor:
            shapes = tuple(tensor.shape for tensor in tensors)
            if shapes not in networks:
                key = f"marigold_{name}-{self.identity}"
                networks[shapes] = self.execution.network(key, lambda: Part().eval(), shapes)
            return torch.from_numpy(networks[shapes](*(tensor.numpy() for tensor in tensors))[0])

        return run

    @cached_property
    def _folder(self) -> Path:
        """Where the checkpoint lies, downloaded if it has to be; all of its networks are in safetensors."""
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        try:
            from diffusers import MarigoldDepthPipeline
        except ImportError as error:
            raise ExpertError(
                "marigold_depth needs the package diffusers.", hint="pip install 'edgekit[experts]'"
            ) from error
        folder = Path(self.model).expanduser()
        try:
            if not folder.is_dir():
                local = without_hub(self.model)
                folder = Path(MarigoldDepthPipeline.download(self.model, use_safetensors=True, local_files_only=local))
        except (OSError, ValueError) as error:
            raise no_checkpoint(self.model, first_line(error), "model_index.json") from error
        if not (folder / "model_index.json").is_file():
            raise ExpertError(
                f"{folder} is no checkpoint of diffusers.", hint="It would hold model_index.json, unet/, vae/ ..."
            )
        for name in _NETWORKS:
            if not any((folder / name).glob("*.safetensors")):
                raise ExpertError(
                    f"The checkpoint {self.model!r} has no weights of {name} in safetensors.",
                    hint="Others can run code when they are loaded; convert it first.",
                )
        return folder


def noise_seed(seed: int, number: int) -> int:
    """32 bits that two numbers decide, which is all that torch takes of a seed on a CPU."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
