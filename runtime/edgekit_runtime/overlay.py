"""Draws a result on its frame: class colours, legend with live shares, rate, age and state, and what other bundles say.

A few tenths of a millisecond at 540×960: everything that does not change is drawn once.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_runtime.beside import Depth, Insets, depth_modality, depth_of
from edgekit_runtime.colour import (
    FONT,
    WHITE,
    Picture,
    Span,
    caption,
    depth_bgr,
    depth_span,
    far_is_high,
    follow,
    lookup,
)
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.modality import Taxonomy
from edgekit_runtime.model import Result

_ALERT = (60, 60, 230)


@dataclass
class View:
    """What the person at the screen chose; a window or a page changes it while the loop runs. `hidden` are class ids
    that get no colour.
    """

    opacity: float = 0.5
    depth: bool = False
    paused: bool = False
    hidden: frozenset[int] = frozenset()

    @classmethod
    def at_first(cls, manifest: Manifest) -> View:
        """As the bundle wishes it."""
        opacity = manifest.display.get("opacity")
        opacity = float(opacity) if isinstance(opacity, int | float) and 0 <= opacity <= 1 else cls.opacity
        return cls(opacity, manifest.display.get("depth") is True)


@dataclass(frozen=True)
class Status:
    """The line at the top: rate, age of the previous picture in ms, what runs."""

    fps: float
    age_ms: float
    engine: str


@dataclass(frozen=True)
class _Panel:
    """The legend without its numbers, and where they go."""

    picture: Picture
    left: int
    top: int
    baselines: tuple[int, ...]
    numbers_x: int
    font_scale: float


class Overlay:
    """Draws results of one bundle; keeps one buffer, which the next `draw` overwrites."""

    def __init__(self, manifest: Manifest, view: View | None = None) -> None:
        self.view = view or View()
        self._taxonomy = manifest.taxonomy
        self._lut = lookup(self._taxonomy) if self._taxonomy else None
        self._depth = depth_modality(manifest)
        self._buffer: Picture = np.zeros((0, 0, 3), np.uint8)
        self._panel: _Panel | None = None
        self._span: Span | None = None
        self._insets = Insets()

    def draw(self, result: Result, status: Status) -> Picture:
        """The frame with everything on it: uint8 `(H, W, 3)` BGR of the frame's size, valid until the next call."""
        image = result.frame.image
        if self._buffer.shape != image.shape:
            self._buffer = np.empty_like(image)
            self._panel = _legend(self._taxonomy, image.shape[0]) if self._taxonomy else None
        coloured = self._coloured(result)
        if coloured is None:
            np.copyto(self._buffer, image)
        else:
            size = image.shape[1::-1]
            coloured = cv2.resize(coloured, size, interpolation=cv2.INTER_NEAREST)
            opacity = self.view.opacity
            cv2.addWeighted(image, 1 - opacity, coloured, opacity, 0, dst=self._buffer)
            if (bare := self._bare(result)) is not None:
                bare = cv2.resize(bare, size, interpolation=cv2.INTER_NEAREST)
                cv2.copyTo(image, bare, self._buffer)
        if self._panel and result.labels is not None and self._shown_depth(result) is None:
            self._draw_legend(self._panel, result.labels)
        if result.beside:
            self._insets.draw(self._buffer, result.beside)
        line = f"{status.fps:.0f} fps   {status.age_ms:.0f} ms   {status.engine}"
        caption(self._buffer, line, font_scale(self._buffer.shape[0]))
        return self._buffer

    def _shown_depth(self, result: Result) -> Depth | None:
        """Depth, far is high, if that is what the picture shows: the first bundle's, else that of one beside it."""
        if not self.view.depth and result.labels is not None:
            return None
        if result.depth is not None and self._depth is not None:
            return far_is_high(self._depth, result.depth)
        return next((depth for depth in map(depth_of, result.beside) if depth is not None), None)

    def _coloured(self, result: Result) -> Picture | None:
        depth = self._shown_depth(result)
        if depth is not None:
            self._span = follow(self._span, depth_span(depth))
            return depth_bgr(depth, self._span)
        if result.labels is not None and self._lut is not None:
            return np.asarray(cv2.applyColorMap(result.labels, self._lut), np.uint8)
        return None

    def _bare(self, result: Result) -> Picture | None:
        """255 where the frame shows a class that is hidden; None where none is."""
        hidden = self.view.hidden
        if not hidden or result.labels is None or self._shown_depth(result) is not None:
            return None
        table = np.zeros(256, np.uint8)
        table[list(hidden)] = 255
        return np.asarray(cv2.LUT(result.labels, table), np.uint8)

    def _draw_legend(self, panel: _Panel, labels: npt.NDArray[np.uint8]) -> None:
        height, width = panel.picture.shape[:2]
        area = self._buffer[panel.top : panel.top + height, panel.left : panel.left + width]
        if area.shape == panel.picture.shape:
            cv2.addWeighted(area, 0.35, panel.picture, 1.0, 0, dst=area)
        counts = np.bincount(labels.ravel(), minlength=256)
        for number, baseline in enumerate(panel.baselines):
            text = "off" if number in self.view.hidden else f"{100 * counts[number] / labels.size:3.0f}%"
            where = panel.left + panel.numbers_x, panel.top + baseline
            cv2.putText(self._buffer, text, where, FONT, panel.font_scale, WHITE, 1, cv2.LINE_AA)


def alerted(picture: Picture, text: str) -> Picture:
    """The picture darkened, with the reason why it is not a live one."""
    image = np.right_shift(picture, 2)
    scale = 1.6 * font_scale(image.shape[0])
    cv2.putText(image, text, (int(16 * scale), image.shape[0] // 2), FONT, scale, _ALERT, 2, cv2.LINE_AA)
    return image


def _legend(taxonomy: Taxonomy, frame_height: int) -> _Panel:
    """Swatch, name and room for a number per class; rows shrink until all classes fit."""
    margin = max(frame_height // 70, 2)
    top = max(frame_height // 11, 8)
    row = max(min(frame_height // 26, (frame_height - top - 3 * margin) // len(taxonomy)), 4)
    scale = row / 42
    name_width = max(cv2.getTextSize(name, FONT, scale, 1)[0][0] for name in taxonomy.classes)
    number_width = cv2.getTextSize("100%", FONT, scale, 1)[0][0]
    names_x = row + 2 * margin
    numbers_x = names_x + name_width + margin
    picture = np.zeros((row * len(taxonomy) + 2 * margin, numbers_x + number_width + margin, 3), np.uint8)
    baselines = []
    for number, (name, (red, green, blue)) in enumerate(zip(taxonomy.classes, taxonomy.colours, strict=True)):
        y = margin + number * row
        cv2.rectangle(picture, (margin, y + row // 6), (margin + row, y + row - row // 6), (blue, green, red), -1)
        baselines.append(y + round(row * 0.75))
        cv2.putText(picture, name, (names_x, baselines[-1]), FONT, scale, WHITE, 1, cv2.LINE_AA)
    return _Panel(picture, margin, top, tuple(baselines), numbers_x, scale)


def font_scale(height: int) -> float:
    return max(height / 1000, 0.35)
