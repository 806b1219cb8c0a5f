"""Pretrained networks of `transformers`: depth and semantics, by the name of a checkpoint or a local folder.

On a CPU a network is converted once, kept in the cache folder, and runs compiled by OpenVINO; on CUDA it runs in
torch under autocast. Pictures are prepared as the checkpoint's own `preprocessor_config.json` says, with OpenCV in
the place of Pillow: the answers agree with the library's own pipeline but for the interpolation of the input.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.expert import Batch, Expert
from edgekit_experts.learned.compiled import Compiled, Precision, cache_folder, read_network
from edgekit_experts.taxonomies import TAXONOMIES, numbered_colours
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality, Taxonomy
from edgekit_runtime.telemetry import switch_off

Array = npt.NDArray[Any]

_UNIVERSAL = ("mask2former", "maskformer", "oneformer")
_PIL_BICUBIC = 3
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_HUB_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Preparation:
    """What a checkpoint does to a picture: `size` as its configuration has it, `multiple` of what sides must be."""

    size: Mapping[str, int]
    keep_ratio: bool
    multiple: int
    interpolation: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Preparation:
        size = table.get("size", {"height": 384, "width": 384})
        if isinstance(size, int):
            size = {"shortest_edge": size}
        scale = float(table.get("rescale_factor", 1 / 255)) if table.get("do_rescale", True) else 1.0
        plain = not table.get("do_normalize", True)
        mean = (0.0,) * 3 if plain else tuple(table.get("image_mean", (0.485, 0.456, 0.406)))
        std = (1.0,) * 3 if plain else tuple(table.get("image_std", (0.229, 0.224, 0.225)))
        return cls(
            dict(size),
            bool(table.get("keep_aspect_ratio", False)),
            int(table.get("ensure_multiple_of") or table.get("size_divisor") or 1),
            cv2.INTER_CUBIC if table.get("resample") == _PIL_BICUBIC else cv2.INTER_LINEAR,
            tuple(float(value) / scale for value in mean),
            tuple(float(value) / scale for value in std),
        )

    def target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that a picture of this size is brought to."""
        if "shortest_edge" in self.size:
            scale = self.size["shortest_edge"] / min(height, width)
            longest = self.size.get("longest_edge")
            if longest:
                scale = min(scale, longest / max(height, width))
            rows, columns = (math.ceil(side * scale / self.multiple) * self.multiple for side in (height, width))
            return rows, columns
        scales = self.size["height"] / height, self.size["width"] / width
        if self.keep_ratio:  # by the one that changes the picture less
            scales = (min(scales, key=lambda scale: abs(1 - scale)),) * 2
        rows, columns = (
            max(self.multiple, round(side * scale / self.multiple) * self.multiple)
            for side, scale in zip((height, width), scales, strict=True)
        )
        return rows, columns

    def tensor(self, frame: Array, size: tuple[int, int]) -> Array:
        """float32 `(1, 3, H, W)` of a uint8 RGB frame."""
        shrinks = frame.shape[0] > size[0]
        picture = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA if shrinks else self.interpolation)
        values = (picture.astype(np.float32) - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1))[None]


class _Pretrained(Expert):
    """One checkpoint. Subclasses say which class of `transformers` it is and what becomes of its answer."""

    name: ClassVar[str]
    deterministic: ClassVar[bool] = False

    def __init__(self, model: str, size: int, precision: Precision, device: str) -> None:
        if precision not in ("f32", "bf16") or device not in ("auto", "cpu", "cuda") or size < 0:
            raise ExpertError(
                f"{self.name}: precision {precision!r}, device {device!r}, size {size} make no sense.",
                hint="precision f32 or bf16, device auto, cpu or cuda, size in pixels or 0.",
            )
        self.model, self.size, self.precision, self.device = model, size, precision, device
        self._networks: dict[tuple[int, int], Callable[[Array], Array]] = {}
        self._preparation: Preparation | None = None
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        path = _file(self.model, "model.safetensors.index.json") or _file(self.model, "model.safetensors")
        if path is None:
            raise ExpertError(
                f"The checkpoint {self.model!r} has no weights in safetensors.",
                hint="Others can run code when they are loaded; convert it first.",
            )
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def compute(self, batch: Batch) -> Array:
        height, width = batch.frames.shape[1:3]
        preparation = self._prepared()
        size = self._network_size(height, width)
        network = self._network(size)
        answers = (network(preparation.tensor(frame, size)) for frame in batch.frames)
        return np.stack([self._stored(answer, (height, width)) for answer in answers])

    @abstractmethod
    def _load(self) -> Any:
        """The torch module, float32 `(1, 3, H, W)` in, one tensor out."""

    @abstractmethod
    def _stored(self, answer: Array, size: tuple[int, int]) -> Array:
        """`(1, ...)` float32 as the modality has it, `(H, W, 1)`."""

    def _prepared(self) -> Preparation:
        if self._preparation is None:
            path = _file(self.model, "preprocessor_config.json")
            table = json.loads(path.read_text(encoding="utf-8")) if path else {}
            self._preparation = Preparation.of(table)
        return self._preparation

    def _network_size(self, height: int, width: int) -> tuple[int, int]:
        if not self.size:
            return self._prepared().target(height, width)
        scale = self.size / max(height, width)
        rows, columns = (max(32, round(side * scale / 32) * 32) for side in (height, width))
        return rows, columns

    def _network(self, size: tuple[int, int]) -> Callable[[Array], Array]:
        with self._lock:
            if size not in self._networks:
                on_cuda = self.device == "cuda" or (self.device == "auto" and _cuda())
                self._networks[size] = self._on_cuda() if on_cuda else self._on_cpu(size)
            return self._networks[size]

    def _on_cpu(self, size: tuple[int, int]) -> Callable[[Array], Array]:
        compiled = Compiled(self._converted(size), self.precision)
        return lambda tensor: compiled(tensor)[0]

    def _converted(self, size: tuple[int, int]) -> Any:
        """The network for pictures of one size, from the cache where it is there."""
        switch_off()
        import openvino
        import torch

        folder = cache_folder()
        key = f"{self.name}-{self.identity}-{size[0]}x{size[1]}-{openvino.__version__.split('-')[0]}"
        path = folder / f"{key}.xml" if folder else None
        if path and path.exists() and path.with_suffix(".bin").exists():
            return read_network(path)
        model = openvino.convert_model(self._load(), example_input=torch.zeros(1, 3, *size))
        model.reshape([1, 3, *size])
        if path:
            # The description last: what can be seen is whole.
            partial = path.with_name(f".{path.name}")
            openvino.save_model(model, partial, compress_to_fp16=False)
            partial.with_suffix(".bin").replace(path.with_suffix(".bin"))
            partial.replace(path)
        return model

    def _on_cuda(self) -> Callable[[Array], Array]:
        import torch

        module = self._load().to("cuda")

        def run(tensor: Array) -> Array:
            with torch.inference_mode(), torch.autocast("cuda", torch.float16):
                answer: Array = module(torch.from_numpy(tensor).to("cuda")).float().cpu().numpy()
            return answer

        return run


class PretrainedDepth(_Pretrained):
    """Depth by a network of `transformers`: float16 (H, W, 1).

    `model` is a checkpoint's name or folder: DPT (`Intel/dpt-large`, `Intel/dpt-hybrid-midas`), Depth Anything
    (`depth-anything/Depth-Anything-V2-Small-hf`, Base, Large and their metric variants), or any other for depth
    estimation. The unit is metres where the checkpoint says so, else relative inverse depth, larger where nearer.
    `size` is the longer side of the picture that the network sees, rounded to multiples of 32; 0: as the checkpoint
    was published with. `precision` f32 or bf16 (CPU); `device` auto, cpu or cuda.
    """

    name = "pretrained_depth"

    def __init__(
        self,
        model: str = "Intel/dpt-large",
        size: int = 0,
        precision: Precision = "f32",
        device: str = "auto",
    ) -> None:
        super().__init__(model, size, precision, device)

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        metric = getattr(_config(self.model), "depth_estimation_type", "relative") == "metric"
        unit = "m" if metric else "relative inverse depth"
        return Modality("depth", Kind.DEPTH, 1, "float16", None, unit)

    def _load(self) -> Any:
        from transformers import AutoModelForDepthEstimation

        model = _from_pretrained(AutoModelForDepthEstimation, self.model)
        if hasattr(model, "neck") and hasattr(model, "dpt"):
            # This one takes pictures to be square, though it need not.
            patch = model.config.patch_size

            def sized(neck: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
                return arguments[0], shape[0] // patch, shape[1] // patch

            model.neck.register_forward_pre_hook(sized)
            shape = [0, 0]

            def note(module: Any, arguments: tuple[Any, ...]) -> None:
                shape[:] = [int(side) for side in arguments[0].shape[-2:]]

            return _Wrapped(model, lambda outputs: outputs.predicted_depth, note)
        return _Wrapped(model, lambda outputs: outputs.predicted_depth)

    def _stored(self, answer: Array, size: tuple[int, int]) -> Array:
        depth = cv2.resize(answer[0], size[::-1], interpolation=cv2.INTER_CUBIC)
        return np.asarray(np.clip(depth, -65504, 65504), np.float16)[..., None]


class PretrainedLabels(_Pretrained):
    """Classes by a network of `transformers`: uint8 (H, W, 1), in the taxonomy of the checkpoint.

    `model` is a checkpoint's name or folder: SegFormer (`nvidia/segformer-b0-finetuned-ade-512-512`), Mask2Former
    (`facebook/mask2former-swin-large-mapillary-vistas-semantic`, panoptic ones, too), MaskFormer, or any other for
    semantic segmentation. Classes that are those of Cityscapes, ADE20K, COCO panoptic or Mapillary Vistas carry the
    taxonomy of that name, so that the tables for `label_map` fit. `size`, `precision`, `device` as for
    `pretrained_depth`.
    """

    name = "pretrained_labels"

    def __init__(
        self,
        model: str = "nvidia/segformer-b0-finetuned-ade-512-512",
        size: int = 0,
        precision: Precision = "f32",
        device: str = "auto",
    ) -> None:
        super().__init__(model, size, precision, device)

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        taxonomy = taxonomy_of(Path(self.model).name, _config(self.model).id2label)
        return Modality("labels", Kind.LABELS, 1, "uint8", taxonomy=taxonomy)

    def _load(self) -> Any:
        from transformers import AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

        if _config(self.model).model_type not in _UNIVERSAL:
            return _Wrapped(_from_pretrained(AutoModelForSemanticSegmentation, self.model), lambda out: out.logits)
        return _Wrapped(_from_pretrained(AutoModelForUniversalSegmentation, self.model), _mask_classification)

    def _stored(self, answer: Array, size: tuple[int, int]) -> Array:
        best = np.full(size, -np.inf, np.float32)
        labels = np.zeros(size, np.uint8)
        for identity, plane in enumerate(answer[0]):
            grown = cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR)
            better = grown > best
            np.copyto(labels, np.uint8(identity), where=better)
            np.copyto(best, grown, where=better)
        return labels[..., None]


def taxonomy_of(name: str, labels: Mapping[int, str]) -> Taxonomy:
    """The taxonomy that ships with just these classes in this order, else one of its own under `name`."""
    classes = [str(labels[number]).partition(",")[0].strip() for number in sorted(labels)]
    plain = [one.lower() for one in classes]
    for taxonomy in TAXONOMIES.values():
        if [one.lower() for one in taxonomy.classes] == plain:
            return taxonomy
    unique = [f"{one} {number}" if classes.count(one) > 1 else one for number, one in enumerate(classes)]
    if len(unique) > 255:
        raise ExpertError(f"{name} knows {len(unique)} classes; stored labels have room for 255.")
    return Taxonomy(name, tuple(unique), numbered_colours(len(unique)))


def _mask_classification(outputs: Any) -> Any:
    """Per-class evidence of networks that answer with masks and a class for each (Cheng et al., MaskFormer, 2021)."""
    classes = outputs.class_queries_logits.softmax(dim=-1)[..., :-1]
    masks = outputs.masks_queries_logits.sigmoid()
    batch, queries, height, width = masks.shape
    evidence = classes.transpose(1, 2) @ masks.reshape(batch, queries, height * width)
    return evidence.reshape(batch, -1, height, width)


def _Wrapped(model: Any, pick: Callable[[Any], Any], before: Callable[..., None] | None = None) -> Any:  # noqa: N802
    """A torch module that gives the one tensor of interest."""
    import torch

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, picture: torch.Tensor) -> torch.Tensor:
            if before:
                before(self.model, (picture,))
            result: torch.Tensor = pick(self.model(pixel_values=picture))
            return result

    return Wrapped().eval()


def _from_pretrained(kind: Any, model: str) -> Any:
    """Never runs code that comes with a checkpoint, never unpickles."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return kind.from_pretrained(
            model,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            local_files_only=_without_hub(model),
        ).eval()
    except (OSError, ValueError) as error:
        raise ExpertError(
            f"The checkpoint {model!r} cannot be loaded: {_first(error)}",
            hint="A name needs a connection (or an earlier download), a folder config.json and model.safetensors.",
        ) from error


def _config(model: str) -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise ExpertError(
            "Pretrained experts need the package transformers.", hint="pip install 'edgekit[experts]'"
        ) from error
    try:
        return AutoConfig.from_pretrained(model, trust_remote_code=False, local_files_only=_without_hub(model))
    except (OSError, ValueError) as error:
        if _on_hub(model) and not _hub_answers():
            raise ExpertError(
                f"The checkpoint {model!r} is not here, and its hub cannot be reached.",
                hint="Connect for a first download, or give the folder of a checkpoint as `model`.",
            ) from error
        raise ExpertError(
            f"There is no checkpoint {model!r}: {_first(error)}",
            hint="A name needs a connection (or an earlier download); a folder holds config.json.",
        ) from error


def _file(model: str, name: str) -> Path | None:
    """A file of a checkpoint, downloaded if it has to be; None where it has none of that name."""
    from transformers.utils.hub import cached_file

    found = cached_file(model, name, local_files_only=_without_hub(model), _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None


def _on_hub(model: str) -> bool:
    """Whether this is the name of a checkpoint, not the path of one."""
    return bool(_HUB_NAME.fullmatch(model)) and not Path(model).exists()


def _without_hub(model: str) -> bool:
    """Whether a checkpoint has to be on this disk already."""
    return not (_on_hub(model) and _hub_answers())


@cache
def _hub_answers() -> bool:
    """Asked once: the hub's library itself would try six times for every file, with a line for each."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_PATIENCE_S)
    except Exception:  # of whichever HTTP library the hub's uses; or offline mode
        return False
    return True


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _first(error: Exception) -> str:
    lines: Sequence[str] = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
