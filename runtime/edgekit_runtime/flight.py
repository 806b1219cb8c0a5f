"""Several frames on their way through a model, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from edgekit_runtime.errors import EngineError
from edgekit_runtime.model import Model, Result
from edgekit_runtime.sources.base import Frame


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
