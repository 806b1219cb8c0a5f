"""Pretrained networks of `transformers`: depth and semantics, by the name of a checkpoint or a local folder.

On a CPU a network is converted once, kept in the cache folder, and runs compiled by OpenVINO; on CUDA it runs in
torch under autocast. Pictures are prepared as the checkpoint's own `preprocessor_config.json` says, with OpenCV in
the place of Pillow: the answers agree with the library's own pipeline but for the interpolation of the input.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.expert import Batch, Expert
from edgekit_experts.learned.checkpoint import Checkpoint
from edgekit_experts.learned.compiled import Precision
from edgekit_experts.learned.network import Execution, Network
from edgekit_experts.learned.preparation import Preparation
from edgekit_experts.taxonomies import TAXONOMIES, numbered_colours
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality, Taxonomy

Array = npt.NDArray[Any]

_UNIVERSAL = ("mask2former", "maskformer", "oneformer")
_TASK = "the task is semantic"


class Pretrained(Expert):
    """One checkpoint, `weights_from` where none is named, and its networks by the size of what they are given."""

    deterministic: ClassVar[bool] = False

    def __init__(self, model: str, precision: Precision, device: str) -> None:
        self.checkpoint = Checkpoint(model or self.weights_from)
        self.execution = Execution(precision, device)
        self._networks: dict[str, Network] = {}
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        return self.checkpoint.digest

    @cached_property
    def preparation(self) -> Preparation:
        return Preparation.of(self.checkpoint.preprocessing)

    def _network(self, name: str, load: Callable[[], Any], *shapes: tuple[int, ...]) -> Network:
        """A network of this checkpoint, made at its first use."""
        key = f"{name}-{shapes}"
        with self._lock:
            if key not in self._networks:
                self._networks[key] = self.execution.network(f"{name}-{self.identity}", load, shapes)
            return self._networks[key]


class _Dense(Pretrained):
    """A network that answers with one value, or one of each class, for every pixel."""

    name: ClassVar[str]

    def __init__(self, model: str = "", size: int = 0, precision: Precision = "f32", device: str = "auto") -> None:
        if size < 0:
            raise ExpertError(f"{self.name}: a size of {size} makes no sense.", hint="Pixels, or 0.")
        super().__init__(model, precision, device)
        self.size = size

    def compute(self, batch: Batch) -> Array:
        height, width = batch.frames.shape[1:3]
        size = self.network_size(height, width)
        network = self._network(self.name, self.load, (1, 3, *(self.preparation.pad or size)))
        answers = (network(self.preparation.tensor(frame, size))[0] for frame in batch.frames)
        return np.stack([self._stored(answer, (height, width)) for answer in answers])

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what the network sees of a frame of this size."""
        if not self.size:
            return self.preparation.target(height, width)
        scale = self.size / max(height, width)
        rows, columns = (max(32, round(side * scale / 32) * 32) for side in (height, width))
        return rows, columns

    @abstractmethod
    def load(self) -> Any:
        """The torch module, float32 `(1, 3, H, W)` in, one tensor out."""

    @abstractmethod
    def _stored(self, answer: Array, size: tuple[int, int]) -> Array:
        """`(1, ...)` float32 as the modality has it, `(H, W, 1)`."""


class PretrainedDepth(_Dense):
    """Depth by a network of `transformers`: RGB frame to float16 (H, W, 1), metres or relative inverse depth.

    `model` is a checkpoint's name or folder: DPT (`Intel/dpt-large`, `Intel/dpt-hybrid-midas`; Ranftl et al., Vision
    Transformers for Dense Prediction, 2021), Depth Anything V2 (`depth-anything/Depth-Anything-V2-Small-hf`, Base,
    Large and their metric variants; Yang et al., 2024), or any other for depth estimation. The unit is metres where
    the checkpoint says so, else relative inverse depth, larger where nearer. `size` is the longer side of the picture
    that the network sees, rounded to multiples of 32; 0: as the checkpoint was published with. `precision` f32 or
    bf16 (CPU); `device` auto, cpu or cuda.
    """

    name = "pretrained_depth"
    makes = "depth"
    weights_from = "Intel/dpt-large"

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        metric = getattr(self.checkpoint.config, "depth_estimation_type", "relative") == "metric"
        unit = "m" if metric else "relative inverse depth"
        return Modality("depth", Kind.DEPTH, 1, "float16", None, unit)

    def load(self) -> Any:
        from transformers import AutoModelForDepthEstimation

        model = self.checkpoint.load(AutoModelForDepthEstimation)
        if hasattr(model, "neck") and hasattr(model, "dpt"):
            _see_any_shape(model)
        return _answering(model, lambda outputs: outputs.predicted_depth)

    def _stored(self, answer: Array, size: tuple[int, int]) -> Array:
        depth = cv2.resize(answer[0], size[::-1], interpolation=cv2.INTER_CUBIC)
        return np.asarray(np.clip(depth, -65504, 65504), np.float16)[..., None]


class PretrainedLabels(_Dense):
    """Classes by a network of `transformers`: RGB frame to uint8 (H, W, 1), ids in the taxonomy of the checkpoint.

    `model` is a checkpoint's name or folder: SegFormer (`nvidia/segformer-b0-finetuned-ade-512-512`; Xie et al.,
    2021), Mask2Former (`facebook/mask2former-swin-large-mapillary-vistas-semantic`, panoptic ones, too; Cheng et al.,
    2022), OneFormer (`shi-labs/oneformer_ade20k_swin_tiny`, for its semantic task; Jain et al., 2023), MaskFormer, or
    any other for semantic segmentation. Classes that are those of Cityscapes, ADE20K, COCO panoptic or Mapillary
    Vistas carry the taxonomy of that name, so that the tables for `label_map` fit. `size`, `precision`, `device` as
    for `pretrained_depth`.
    """

    name = "pretrained_labels"
    makes = "labels"
    weights_from = "nvidia/segformer-b0-finetuned-ade-512-512"

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        taxonomy = taxonomy_of(Path(self.checkpoint.name).name, self.checkpoint.config.id2label)
        return Modality("labels", Kind.LABELS, 1, "uint8", taxonomy=taxonomy)

    def load(self) -> Any:
        from transformers import AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

        kind = self.checkpoint.config.model_type
        if kind not in _UNIVERSAL:
            return _answering(self.checkpoint.load(AutoModelForSemanticSegmentation), lambda outputs: outputs.logits)
        if kind != "oneformer":
            return _answering(self.checkpoint.load(AutoModelForUniversalSegmentation), _mask_classification)
        # The branch that only training needs wants a text for every picture.
        model = self.checkpoint.load(AutoModelForUniversalSegmentation, is_training=False)
        return _answering(model, _mask_classification, task_inputs=_task_tokens(self.checkpoint))

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


def _task_tokens(checkpoint: Checkpoint) -> Any:
    """What tells OneFormer its task: token ids `(1, task_seq_len)`, zeros behind the text, as its processor has it."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ExpertError(
            f"The checkpoint {checkpoint.name!r} has no tokenizer, which OneFormer needs to be told its task.",
            hint="Its folder holds vocab.json and merges.txt, or tokenizer.json.",
        ) from error
    length = checkpoint.config.task_seq_len
    tokens = tokenizer(_TASK, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return tokens["input_ids"] * tokens["attention_mask"]


def _see_any_shape(dpt: Any) -> None:
    """DPT takes pictures to be square, though it need not: its neck is told the shape of what came in."""
    patch = dpt.config.patch_size
    shape = [0, 0]

    def note(module: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        shape[:] = (int(side) for side in named["pixel_values"].shape[-2:])

    def tell(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return arguments[0], shape[0] // patch, shape[1] // patch

    dpt.register_forward_pre_hook(note, with_kwargs=True)
    dpt.neck.register_forward_pre_hook(tell)


def _answering(model: Any, pick: Callable[[Any], Any], **constant: Any) -> Any:
    """A torch module from a picture to the one tensor of interest; `constant` tensors go in beside the picture."""
    import torch

    class Answering(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            for name, value in constant.items():
                self.register_buffer(name, value)

        def forward(self, picture: torch.Tensor) -> torch.Tensor:
            beside = {name: getattr(self, name) for name in constant}
            result: torch.Tensor = pick(self.model(pixel_values=picture, **beside))
            return result

    return Answering().eval()
