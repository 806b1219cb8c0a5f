"""Optical flow by RAFT, where torchvision is installed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError

from edgekit_experts.classical.flow import DenseFlow
from edgekit_experts.dataset.names import closest
from edgekit_experts.learned.checkpoint import first_line
from edgekit_experts.learned.compiled import Precision
from edgekit_experts.learned.network import Execution, Network
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Modality

Array = npt.NDArray[Any]

_MULTIPLE = 8  # of the sides
_LEAST = 128  # pixels of a side: below it the pyramid of correlations has no top


class RaftFlow(DenseFlow):
    """Flow from a frame to the one `gap` frames later, by a network: RGB frames to float16 (H, W, 2), pixels (dx, dy).

    A negative `gap` looks back. The frames at the end of a video, which have no such partner, are paired with its
    last one. `network` is large or small, `updates` the number of refinements; its weights are those that torchvision
    publishes (pickled, read as tensors only), or `path`, a safetensors file of the same network. `precision` f32 or
    bf16 (CPU); `device` auto, cpu or cuda. Method: Teed and Deng, RAFT: Recurrent All-Pairs Field Transforms for
    Optical Flow, ECCV 2020, as in torchvision.
    """

    name = "raft_flow"
    deterministic = False
    makes = "flow"
    weights_from = "torchvision"

    def __init__(
        self,
        gap: int = 1,
        network: str = "large",
        path: str = "",
        updates: int = 12,
        precision: Precision = "f32",
        device: str = "auto",
    ) -> None:
        if network not in ("large", "small"):
            raise ExpertError(f"raft_flow: unknown network {network!r}.", hint=closest(network, ("large", "small")))
        if updates < 1:
            raise ExpertError(f"raft_flow: {updates} updates make no sense.", hint="updates >= 1.")
        super().__init__(gap)
        self.network, self.path, self.updates = network, Path(path).expanduser() if path else None, updates
        self.execution = Execution(precision, device)
        self._networks: dict[tuple[int, ...], Network] = {}
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        if self.path is None:
            return Path(self._published().url).stem
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()[:16]
        except OSError as error:
            raise ExpertError(f"{self.path} cannot be read: {error.strerror}.", hint="Check the path.") from error

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        _ = self._model  # what is missing or does not fit is said before a frame is read
        return super().produces(inputs)

    def _view(self, frame: Array) -> Array:
        """float32 `(1, 3, h, w)`, -1 to 1, the frame at its upper left."""
        fill = [(0, max(_LEAST, -(-side // _MULTIPLE) * _MULTIPLE) - side) for side in frame.shape[:2]]
        picture = np.pad(frame, [*fill, (0, 0)], mode="edge")
        return np.ascontiguousarray(picture.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1)

    def _search(self) -> Callable[[Array, Array], Array]:
        def search(first: Array, second: Array) -> Array:
            (flow,) = self._sized(first.shape)(first, second)
            return np.moveaxis(flow[0], 0, -1)

        return search

    def _sized(self, shape: tuple[int, ...]) -> Network:
        with self._lock:
            if shape not in self._networks:
                key = f"raft-{self.network}-{self.updates}-{self.identity}"
                self._networks[shape] = self.execution.network(key, self._load, [shape, shape])
            return self._networks[shape]

    @cached_property
    def _model(self) -> Any:
        model = getattr(_torchvision(), f"raft_{self.network}")(weights=None, progress=False)
        try:
            if self.path is None:
                state = self._published().get_state_dict(progress=False, check_hash=True, weights_only=True)
            else:
                from safetensors.torch import load_file

                state = load_file(self.path)
            model.load_state_dict(state)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise ExpertError(
                f"The weights of raft_{self.network} cannot be loaded: {first_line(error)}",
                hint="Those of torchvision need a connection (or an earlier download); others are named by `path`.",
            ) from error
        return model

    def _load(self) -> Any:
        import torch

        class Last(torch.nn.Module):
            """The flow after the last update."""

            def __init__(self, model: Any, updates: int) -> None:
                super().__init__()
                self.model, self.updates = model, updates

            def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
                flow: torch.Tensor = self.model(first, second, num_flow_updates=self.updates)[-1]
                return flow

        return Last(self._model, self.updates).eval()

    def _published(self) -> Any:
        return getattr(_torchvision(), f"Raft_{self.network.capitalize()}_Weights").DEFAULT


def _torchvision() -> Any:
    """`torchvision.models.optical_flow`. Raises ExpertError where it is absent or does not fit torch."""
    try:
        from torchvision.models import optical_flow
    except (ImportError, OSError, RuntimeError) as error:
        raise ExpertError(
            f"raft_flow needs torchvision: {first_line(error)}.",
            hint="pip install torchvision, of the release for your torch.",
        ) from error
    return optical_flow
