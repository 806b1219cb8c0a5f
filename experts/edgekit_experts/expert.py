"""The contract of an expert: frames (and other modalities) in, one modality out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt

from edgekit_runtime.modality import Modality

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """A run of consecutive frames of one video with what was computed for them so far.

    `frames` is uint8 `(before + N + after, H, W, 3)` RGB: the N frames to answer for, preceded and followed by
    the context that the expert asked for; at the ends of a video the first or last frame is repeated.
    `inputs[name]` holds the required modalities, with the same context: `(before + N + after, h, w, C)`.
    `first` is the video's index of the first of the N frames, `fps` its frames a second, `video` its name.
    """

    frames: Array
    inputs: Mapping[str, Array]
    first: int
    video: str = ""
    fps: float = 25.0


class Expert(ABC):
    """Computes one modality. Stateless between batches; built from a table of parameters.

    Subclasses say what they need (`requires`: names of modalities; `context`: frames before and after) and
    what they make (`produces`). The constructor's keyword arguments are the parameters of the config file.

    For `edgekit experts`: `example` are parameters that suffice to build it, its inputs being streams of the
    synthetic world, or other experts by name; kinds in and out are read off what they build. An expert that says
    what it makes only with its weights at hand, or makes whatever it is given, says so in `makes`. `weights_from` is
    the name of a checkpoint, "your file", or empty where none are needed.
    """

    context: tuple[int, int] = (0, 0)  # of the class, or of one instance where a parameter decides it
    deterministic: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {}
    makes: ClassVar[str] = ""
    weights_from: ClassVar[str] = ""

    @property
    def identity(self) -> str:
        """What decides the values beside parameters and inputs: a version, a digest of a table or of weights.

        Asked after `produces`. When it changes, stored frames become stale.
        """
        return ""

    @property
    def requires(self) -> tuple[str, ...]:
        return ()

    @abstractmethod
    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        """The modality that comes out, given the declarations of the required ones.

        Raises ExpertError when an input is of a kind that this expert cannot use.
        """

    @abstractmethod
    def compute(self, batch: Batch) -> Array:
        """`(N, H, W, C)` in the dtype of `produces`, for the N frames of the batch without their context."""
