"""Bundles beside the first one: each runs at its own pace, and is shown as a small picture in a corner."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_runtime.colour import WHITE, Picture, Span, caption, depth_bgr, depth_span, far_is_high, follow, lookup
from edgekit_runtime.events import announce
from edgekit_runtime.handoff import Handoff
from edgekit_runtime.inference import Inference
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.modality import Kind, Modality
from edgekit_runtime.model import Beside, Model, Result
from edgekit_runtime.sources.base import Frame

_POLL_S = 0.1


class Companion:
    """Keeps the newest result of `model` in `latest`; None before the first, and when its last engine has failed."""

    def __init__(self, model: Model, engine: str | None = None) -> None:
        self.latest: Beside | None = None
        self._frames: Handoff[Frame] = Handoff(1)
        self._times: deque[float] = deque(maxlen=16)
        self.inference = Inference(
            model,
            take=lambda: self._frames.get(_POLL_S),
            ended=lambda: self._frames.exhausted,
            give=self._note,
            on_end=self._end,
            engine=engine,
        )

    def offer(self, frame: Frame) -> None:
        """Never waits."""
        self._frames.offer(frame)

    def start(self) -> None:
        self.inference.start()

    def stop(self, patience_s: float) -> None:
        self._frames.discard()
        self.inference.stop(patience_s)

    def _note(self, result: Result) -> None:
        self._times.append(time.monotonic())
        span = self._times[-1] - self._times[0]
        fps = (len(self._times) - 1) / span if span > 0 else 0.0
        self.latest = Beside(self.inference.model.manifest, result, fps)

    def _end(self) -> None:
        self.latest = None
        self._frames.discard()
        failure = self.inference.failure
        if failure is not None:
            name = self.inference.model.manifest.name
            announce("bundle_lost", f"{name} is left out from here on: {failure}", level=logging.ERROR, bundle=name)


Depth = npt.NDArray[Any]


@dataclass
class _Inset:
    """The picture that was drawn last, of which result, and the scale of its colours."""

    picture: Picture = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8))
    result: Result | None = None
    span: Span | None = None


class Insets:
    """What they say, each of the frame that it speaks of: drawn once, and copied until there is a newer one."""

    def __init__(self) -> None:
        self._drawn: dict[int, _Inset] = {}

    def draw(self, picture: Picture, beside: Sequence[Beside]) -> None:
        """Onto `picture`, uint8 `(H, W, 3)` BGR, in place: from the bottom right corner upwards, a quarter as wide."""
        height, width = picture.shape[:2]
        margin = max(height // 70, 2)
        bottom = height - margin
        for number, each in enumerate(beside):
            inset = self._inset(number, each, max(width * 2 // 7, 1))
            top, left = bottom - inset.shape[0], width - margin - inset.shape[1]
            if top < 0 or left < 0:
                return
            area = picture[top:bottom, left : left + inset.shape[1]]
            area[:] = inset
            age_ms = (time.monotonic() - each.result.frame.captured) * 1e3
            title = f"{each.manifest.name}   {each.fps:.1f} fps   {age_ms:.0f} ms"
            caption(area[1:-1, 1:-1], title, max(height / 1200, 0.3))
            bottom = top - margin

    def _inset(self, number: int, beside: Beside, width: int) -> Picture:
        inset = self._drawn.setdefault(number, _Inset())
        if inset.result is not beside.result or inset.picture.shape[1] != width:
            frame = beside.result.frame.image
            size = width, max(round(frame.shape[0] * width / frame.shape[1]), 1)
            shown = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            coloured = _coloured(inset, beside)
            if coloured is not None:
                share = 0.0 if beside.result.labels is None else 0.5
                coloured = cv2.resize(coloured, size, interpolation=cv2.INTER_NEAREST)
                cv2.addWeighted(shown, share, coloured, 1 - share, 0, dst=shown)
            cv2.rectangle(shown, (0, 0), (size[0] - 1, size[1] - 1), WHITE, 1)
            inset.picture, inset.result = np.asarray(shown, np.uint8), beside.result
        return inset.picture


def depth_of(beside: Beside) -> Depth | None:
    """Its depth, far is high; None where it has none."""
    modality = depth_modality(beside.manifest)
    if modality is None or beside.result.depth is None:
        return None
    return far_is_high(modality, beside.result.depth)


def depth_modality(manifest: Manifest) -> Modality | None:
    """What a bundle says its depth is, if it has any."""
    said = (output.modality for output in manifest.outputs)
    return next((each for each in said if each is not None and each.kind is Kind.DEPTH), None)


def _coloured(inset: _Inset, beside: Beside) -> Picture | None:
    if beside.result.labels is not None and (taxonomy := beside.manifest.taxonomy):
        return np.asarray(cv2.applyColorMap(beside.result.labels, lookup(taxonomy)), np.uint8)
    depth = depth_of(beside)
    if depth is None:
        return None
    inset.span = follow(inset.span, depth_span(depth))
    return depth_bgr(depth, inset.span)
