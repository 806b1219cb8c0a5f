"""A bundle opened for inference: a frame in, class map and depth out."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.engines import Opened, Skipped, open_engine, open_first
from edgekit_runtime.errors import EngineError, UsageError
from edgekit_runtime.manifest import Manifest, TensorSpec, Variant
from edgekit_runtime.modality import Kind
from edgekit_runtime.sources.base import Frame


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds spent on one frame: bringing it to the network's size, and the network itself, from the start of the
    frame until it was waited for.
    """

    resize_ms: float
    inference_ms: float


@dataclass(frozen=True, slots=True)
class Result:
    """What the network says about one frame.

    `labels`: uint8 `(h, w)` class ids of the bundle's taxonomy, or None; `depth`: `(h, w)` in the dtype and unit of
    the bundle's depth modality, or None. Both are at the network's output resolution, which may be below the
    frame's, and belong to the caller. `beside` is what other bundles have said last, where the loop runs several.
    """

    frame: Frame
    labels: npt.NDArray[np.uint8] | None
    depth: npt.NDArray[Any] | None
    timing: Timing
    beside: tuple[Beside, ...] = ()


@dataclass(frozen=True, slots=True)
class Beside:
    """The newest result of a bundle that runs beside the first one, at its own pace of `fps`.

    `result.frame` is the frame that it speaks of, which is older than the one beside which it is shown.
    """

    manifest: Manifest
    result: Result
    fps: float


class Model:
    """An opened bundle. Call it with a frame; use it from one thread at a time; close it (or use `with`)."""

    def __init__(self, bundle: Bundle, opened: Opened, instead_of: Variant | None = None) -> None:
        self.instead_of = instead_of
        self._hold(bundle, opened)

    def _hold(self, bundle: Bundle, opened: Opened) -> None:
        self._bundle = bundle
        self._opened = opened
        self._engine = opened.engine
        height, width = bundle.manifest.input_size
        # One for each frame that the engine works on at once.
        self._buffers = [np.zeros((1, height, width, 3), np.uint8) for _ in range(self.requests)]
        self._next = 0
        self._labels = _first_of(Kind.LABELS, bundle.manifest)
        self._depth = _first_of(Kind.DEPTH, bundle.manifest)

    @property
    def bundle(self) -> Bundle:
        """The bundle that was opened, in the size that runs."""
        return self._bundle

    @property
    def manifest(self) -> Manifest:
        return self._bundle.manifest

    @property
    def path(self) -> Path:
        return self._bundle.path

    @property
    def variant(self) -> Variant:
        """The variant that runs."""
        return self._opened.variant

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The variants that the bundle prefers but that cannot run here, and why."""
        return self._opened.skipped

    @property
    def requests(self) -> int:
        """How many frames may be started before the first is waited for: more than 1 in bundles for throughput."""
        return self._engine.requests

    @property
    def engine(self) -> str:
        """Library, version and device, for display."""
        return f"{self._engine.name} on {self._engine.device}"

    def __call__(self, frame: Frame | npt.NDArray[np.uint8]) -> Result:
        """Runs one frame: a Frame, or uint8 `(H, W, 3)` BGR of any size.

        Raises UsageError for an array of another kind and EngineError when the engine fails.
        """
        return self.start(frame)()

    def start(self, frame: Frame | npt.NDArray[np.uint8]) -> Callable[[], Result]:
        """Begins with a frame as a call takes it; what is returned waits for its result, once.

        At most `requests` frames may be begun and not waited for, and they are waited for in their order. Raises as a
        call does.
        """
        if not isinstance(frame, Frame):
            frame = Frame(np.asarray(frame), index=0, timestamp_s=0.0, captured=time.monotonic())
        started = time.perf_counter()
        image = self._fit(frame.image)
        ready = time.perf_counter()
        pending = self._engine.start(image)

        def wait() -> Result:
            outputs = pending()
            done = time.perf_counter()
            return Result(
                frame=frame,
                # Copies: the engine's memory is overwritten by later frames.
                labels=outputs[self._labels][0].astype(np.uint8) if self._labels else None,
                depth=np.array(outputs[self._depth][0]) if self._depth else None,
                timing=Timing((ready - started) * 1e3, (done - ready) * 1e3),
            )

        return wait

    def warm_up(self) -> None:
        """Runs black frames, so that the first real one does not pay for the engine's lazy set-up."""
        for buffer in self._buffers:
            self._engine.infer(buffer)

    def reopened(self) -> Model:
        """The same variant of the same bundle, opened anew and warmed up. Raises EngineError and BundleError."""
        return self._opened_as(self._bundle, self.variant)

    def smaller(self) -> Callable[[], Model] | None:
        """Opens the same network for the next smaller frames on the same engine, warmed up; None where there is none.

        What is opened has in `instead_of` the variant that it is to replace. Raises EngineError and BundleError.
        """
        return self._resized(self._bundle.smaller())

    def larger(self) -> Callable[[], Model] | None:
        """The way back from `smaller`."""
        return self._resized(self._bundle.larger)

    @property
    def enlargement(self) -> float:
        """How many times as many pixels the next larger frames have; 1 where there are none."""
        larger = self._bundle.larger or self._bundle
        return math.prod(larger.manifest.input_size) / math.prod(self.manifest.input_size)

    def _resized(self, bundle: Bundle | None) -> Callable[[], Model] | None:
        if bundle is not None:
            for variant in bundle.manifest.variants:
                if (variant.engine, variant.device) == (self.variant.engine, self.variant.device):
                    return partial(self._opened_as, bundle, variant, self.variant)
        return None

    def _opened_as(self, bundle: Bundle, variant: Variant, instead_of: Variant | None = None) -> Model:
        model = Model(bundle, Opened(open_engine(bundle, variant), variant, self.skipped), instead_of)
        model.warm_up()
        return model

    def fallen_back(self, reason: str, engine: str | None = None) -> Model:
        """The next variant that runs here, in the bundle's order; `reason` is why this one no longer does.

        In the place of one for smaller frames, the first for the bundle's own. `engine` restricts the choice, as for
        `load`. Raises EngineError when there is none left, and BundleError.
        """
        whole = self._bundle
        while whole.larger:
            whole = whole.larger
        return _open_warm(whole, engine, (*self.skipped, Skipped(self.variant, reason)))

    def become(self, other: Model) -> None:
        """Goes on as `other`, which is used up by this. What ran before is not closed: it may hang."""
        self._hold(other._bundle, other._opened)

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _fit(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The image as `[1, H, W, 3]`: the frame's own memory when its size is right, else resized into a buffer."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UsageError(f"A frame is uint8 (H, W, 3) BGR, not {image.dtype} {image.shape}.")
        height, width = self.manifest.input_size
        # Engines refuse to wrap read-only memory.
        if image.shape[:2] == (height, width) and image.flags.c_contiguous and image.flags.writeable:
            return image[None]
        buffer = self._buffers[self._next]
        self._next = (self._next + 1) % len(self._buffers)
        if image.shape[:2] == (height, width):
            np.copyto(buffer[0], image)
            return buffer
        # Below half size bilinear sampling skips pixels; averaging does not.
        method = cv2.INTER_AREA if image.shape[0] >= 2 * height else cv2.INTER_LINEAR
        cv2.resize(image, (width, height), dst=buffer[0], interpolation=method)
        return buffer


def load(path: str | Path, *, engine: str | None = None, key: Path | None = None) -> Model:
    """Verifies a bundle and opens the first of its variants that runs here; `engine` restricts the choice.

    With `key`, a public Ed25519 key (PEM), only bundles that it has signed are opened. Raises BundleError (missing,
    damaged, altered, too new, not signed so) and EngineError (no engine for it is installed).
    """
    return _open_warm(open_bundle(path, key=key), engine)


def _open_warm(bundle: Bundle, engine: str | None, passed_over: tuple[Skipped, ...] = ()) -> Model:
    """The first variant that opens and infers; one that only opens is passed over, too."""
    while True:
        model = Model(bundle, open_first(bundle, engine, passed_over))
        try:
            model.warm_up()
        except EngineError as error:
            model.close()
            passed_over = (*model.skipped, Skipped(model.variant, str(error.args[0])))
        else:
            return model


def _first_of(kind: Kind, manifest: Manifest) -> str | None:
    specs: list[TensorSpec] = [o for o in manifest.outputs if o.modality and o.modality.kind is kind]
    return specs[0].name if specs else None


class Flight:
    """At most `ahead` frames that were begun and not finished, or what the model takes at once; results come in order.

    More than one at once is for files, which can wait: each frame takes longer then, all together less.
    """

    def __init__(self, model: Model, ahead: int) -> None:
        self._model = model
        self._ahead = ahead
        self._begun: deque[Callable[[], Result]] = deque()

    def __len__(self) -> int:
        return len(self._begun)

    @property
    def full(self) -> bool:
        return len(self._begun) >= min(self._ahead, self._model.requests)

    def begin(self, frame: Frame | npt.NDArray[np.uint8]) -> None:
        """Only where there is room (`full`). Raises as the model does."""
        self._begun.append(self._model.start(frame))

    def finish(self) -> Result:
        """Waits for the frame that was begun first. Raises EngineError; that frame is over then, too."""
        return self._begun.popleft()()

    def abandon(self) -> None:
        """Waits for all that were begun, whatever becomes of them."""
        while self._begun:
            with suppress(EngineError):
                self.finish()
