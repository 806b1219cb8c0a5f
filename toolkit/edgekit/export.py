"""A network as deploy graph: camera bytes in, class ids or depth out, nothing per pixel left to Python.

Input `image`: uint8 `[1, H, W, 3]` BGR. Outputs, those that the network has: `labels`: uint8 `[1, h, w]` class ids;
`depth`: float32 `[1, h, w]` in the unit of its modality.

Measured for edge-430k at 544×960, INT8 in OpenVINO on two AVX-512 VNNI cores, and therefore done here:

- BGR to RGB and the normalisation cost 1.6 ms of 7 as operations of their own. Folded into the first
  convolution they cost nothing, but its zero padding would then mean black, not the mean colour that training
  saw there: so the picture gets a border in the mean colour, one copy of bytes (0.13 ms).
- ArgMax over the channel axis of a 4-D tensor took 0.7 ms with float32 logits, 0.03 ms over a flattened 3-D one.
- Up-sampling the logits by two before ArgMax costs 1.5 to 3 ms, by four 5 ms and more.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.deployable import Deployable, Size
from edgekit.fine_tune import FineTuning, Frames
from edgekit.network_input import BorderedInput, CentredInput, Fold, NormalisedInput, network_rgb
from edgekit.operations import named
from edgekit.profiles import Profile
from edgekit_runtime.errors import BuildError
from edgekit_runtime.manifest import TensorSpec
from edgekit_runtime.modality import Kind, Modality, Taxonomy
from edgekit_student.encoding import decode

# 20 is read by ONNX Runtime from 1.17 on, and by TensorRT from 10.
OPSET = 20
INPUT = "image"
# A network is used at the profile's input size when that is this close to the size of its training.
SAME_SIZE = 0.1

Arrays = dict[str, npt.NDArray[Any]]


class DeployGraph(nn.Module):
    """`forward(image uint8 [1, H, W, 3]) -> (labels uint8 [1, h, w], depth float32 [1, h, w])`, what there is."""

    def __init__(
        self,
        source: Deployable,
        input_size: Size,
        network_size: Size,
        label_stride: int,
        fold: Fold | None = None,
    ) -> None:
        super().__init__()
        self.front: nn.Module
        network = source.inference_network()
        fold = fold or BorderedInput.fold
        folded = fold(network, source, input_size) if input_size == network_size else None
        self.front = folded or NormalisedInput(source, input_size, network_size)
        self.finer = _unshuffle(network)
        self.network = network
        self.outputs = deploy_outputs(source)
        self.up = max(1, source.stride // label_stride)
        self.statistics = source.statistics
        self.all_outputs = source.outputs

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        channels = self.network(self.front(image))
        features = [modality.features * self.finer**2 for modality in self.all_outputs]
        parts = torch.split(channels, features, dim=1)
        by_name = dict(zip((modality.name for modality in self.all_outputs), parts, strict=True))
        return tuple(self._finish(modality, by_name[modality.name]) for modality in self.outputs.values())

    def channels(self, image: Tensor) -> Tensor:
        """All that the network answers, float `[1, features, h, w]`, as it would in PyTorch."""
        return F.pixel_shuffle(self.network(self.front(image)), self.finer)

    def _finish(self, modality: Modality, part: Tensor) -> Tensor:
        if modality.kind is Kind.LABELS:
            return class_map(part, self.up, self.finer)
        return decode(modality, F.pixel_shuffle(part, self.finer), self.statistics)[:, 0]


def class_map(logits: Tensor, up: int = 1, finer: int = 1) -> Tensor:
    """`[1, C·finer², h, w]` logits as uint8 class ids `[1, h·finer·up, w·finer·up]`."""
    if up > 1:
        logits, finer = F.pixel_shuffle(logits, finer), 1
        logits = F.interpolate(logits, scale_factor=float(up), mode="bilinear", align_corners=False)
    height, width = logits.shape[2:]
    ids = logits.reshape(1, -1, finer**2 * height * width).argmax(dim=1).to(torch.uint8)
    if finer == 1:
        return ids.view(1, height, width)
    # The ids are put in their places, a byte each, not the logits.
    ids = ids.view(finer, finer, height, width).permute(2, 0, 3, 1)
    return ids.reshape(1, height * finer, width * finer)


def _unshuffle(network: nn.Module) -> int:
    """Takes out the network's last step, in place, where that lays finer logits out; returns by how much finer."""
    shuffle = getattr(network, "shuffle", None)
    if not isinstance(shuffle, nn.PixelShuffle):
        return 1
    network.shuffle = nn.Identity()
    return shuffle.upscale_factor


def deploy_outputs(source: Deployable) -> dict[str, Modality]:
    """The outputs that a bundle can carry, by tensor name. Raises BuildError when there is none."""
    found: dict[str, Modality] = {}
    for kind, name in ((Kind.LABELS, "labels"), (Kind.DEPTH, "depth")):
        modality = next((output for output in source.outputs if output.kind is kind), None)
        if modality is not None:
            found[name] = modality
    if not found:
        there = ", ".join(f"{output.name} ({output.kind.value})" for output in source.outputs)
        raise BuildError(
            f"{source.name} answers with neither labels nor depth: {there}.",
            hint="A bundle needs one of them; distil a student with a labels modality.",
        )
    return found


def rounded_up(size: Size, multiple: int) -> Size:
    """The next size whose sides are multiples."""
    height, width = (-(-side // multiple) * multiple for side in size)
    return height, width


def working_size(network: str, profile: Profile, frame: Size, only: Size | None) -> Size:
    """(height, width) at which a network works on frames of that size; `only` is the one that it takes, None: any.

    Raises BuildError where the profile wants another.
    """
    wanted = profile.network_size
    if isinstance(wanted, tuple) and only not in (None, wanted):
        raise BuildError(
            f"{network} takes pictures of {only[1]}x{only[0]} only.",
            hint='Leave network_size out of the profile, or set it to "student".',
        )
    return only or (wanted if isinstance(wanted, tuple) else frame)


@dataclass(frozen=True)
class Exporter:
    """The deploy graph of one network for one profile, in the forms that engines read.

    `fold` is how bytes become the network's input: as CPUs have it fastest, unless said otherwise. `fine_tuning` is
    what is wanted where INT8 loses too much.
    """

    source: Deployable
    profile: Profile
    fold: Fold = BorderedInput.fold
    fine_tuning: FineTuning | None = None

    @cached_property
    def for_gpus(self) -> Exporter:
        """The same with the front that GPUs have fastest."""
        return replace(self, fold=CentredInput.fold)

    def fine_tuned(self, frames: Frames) -> Exporter | None:
        """The same with weights that lose less in INT8, learnt on uint8 BGR `(H, W, 3)` when first asked; None where
        that is not wanted.
        """
        if self.fine_tuning is None:
            return None
        return replace(self, source=self.fine_tuning.of(self.source, frames, self.network_size))

    @property
    def original(self) -> str:
        return "PyTorch"

    @cached_property
    def input_size(self) -> Size:
        """(height, width) of the frames that the graph takes."""
        wanted, trained = self.profile.input_size, self.source.input_size
        if self.profile.network_size != "student":
            return wanted
        if trained is not None:
            if self.source.fixed:
                return trained
            if all(abs(a - b) <= SAME_SIZE * b for a, b in zip(trained, wanted, strict=True)):
                return wanted
            wanted = trained
        # Odd sizes at the coarser scales would have to be cropped, which costs a copy each.
        return rounded_up(wanted, self.source.multiple)

    def at(self, size: Size) -> Exporter | None:
        """The same for frames of that size, rounded up to what the network takes; None where it takes no other."""
        if self.source.fixed:
            return None
        return replace(self, profile=self.profile.at(rounded_up(size, self.source.multiple)))

    @property
    def network_size(self) -> Size:
        """(height, width) that the network itself works at; the graph resizes when it is not `input_size`.

        Raises BuildError where the profile wants another size than the only one that the network takes.
        """
        only = self.source.input_size if self.source.fixed else None
        return working_size(self.source.name, self.profile, self.input_size, only)

    @cached_property
    def graph(self) -> DeployGraph:
        """In eval mode. The folding was compared with the network itself on noise."""
        stride = self.profile.label_stride
        graph = DeployGraph(self.source, self.input_size, self.network_size, stride, self.fold).eval()
        self._check(graph)
        return graph

    @property
    def input(self) -> TensorSpec:
        return TensorSpec(INPUT, (1, *self.input_size, 3), "uint8")

    @property
    def taxonomy(self) -> Taxonomy | None:
        """The classes of the labels that come out, if any do."""
        labels = self.graph.outputs.get("labels")
        return labels.taxonomy if labels else None

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        with torch.no_grad():
            values = self.graph(torch.zeros(1, *self.input_size, 3, dtype=torch.uint8))
        return tuple(
            TensorSpec(name, tuple(value.shape), str(value.dtype).removeprefix("torch."), modality)
            for (name, modality), value in zip(self.graph.outputs.items(), values, strict=True)
        )

    def reference(self, image: npt.NDArray[np.uint8]) -> Arrays:
        """What the network says in PyTorch, as it was trained, of uint8 BGR `(H, W, 3)`: the graph's outputs by name,
        uint8 and float32 `(h, w)`.
        """
        size = None if self.input_size == self.network_size else self.network_size
        with torch.no_grad():
            parts = self.source.answers(network_rgb(torch.from_numpy(image)[None], size))
        said = dict(zip((modality.name for modality in self.source.outputs), parts, strict=True))
        found: Arrays = {}
        for name, modality in self.graph.outputs.items():
            part = said[modality.name]
            if modality.kind is Kind.LABELS:
                found[name] = class_map(part, self.graph.up)[0].numpy()
            else:
                found[name] = decode(modality, part, self.source.statistics)[0, 0].numpy()
        return found

    @cached_property
    def _program(self) -> torch.export.ExportedProgram:
        example = (torch.zeros(1, *self.input_size, 3, dtype=torch.uint8),)
        with named(self.source.name, "torch.export"), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its own internals
            return torch.export.export(self.graph, example)

    def openvino(self) -> Any:
        """A fresh `openvino.Model` in float32. Raises BuildError that names what OpenVINO does not know."""
        from edgekit_runtime.engines import switch_off

        switch_off()
        import openvino

        with named(self.source.name, "OpenVINO"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = openvino.convert_model(self._program)
        model.inputs[0].set_names({INPUT})
        # The converter leaves the height open where the border is joined on.
        model.reshape({INPUT: [1, *self.input_size, 3]})
        for port, name in zip(model.outputs, self.graph.outputs, strict=True):
            port.set_names({name})
        return model

    def onnx(self) -> Any:
        """A fresh `onnx.ModelProto` in float32, opset `OPSET`. Raises BuildError that names what ONNX does not know."""
        import logging

        # The exporter reports every optional package that is not there.
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with named(self.source.name, "ONNX"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                self._program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(self.graph.outputs),
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
        strip(model)
        return model

    def _check(self, graph: DeployGraph) -> None:
        """Raises BuildError when the graph's answers are not the network's: a fold that does not hold."""
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (1, *self.input_size, 3), dtype=torch.uint8, generator=generator)
        size = None if self.input_size == self.network_size else self.network_size
        with torch.no_grad():
            expected = torch.cat(self.source.answers(network_rgb(image, size)), dim=1)
            found = graph.channels(image)
        scale = float(expected.abs().max()) or 1.0
        error = float((found - expected).abs().max()) / scale
        if not error < 0.01:
            raise BuildError(
                f"The deploy graph of {self.source.name!r} differs from the network: {error:.1%}.",
                hint="Its first convolution cannot take the normalisation in; please report this network.",
            )


def strip(model: Any) -> None:
    """Removes names and traces of the machine that exported: they are large, and never the same twice."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    del graph.value_info[:]
