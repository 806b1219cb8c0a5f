"""Several frames on their way through a model, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from edgekit_runtime.model import Model, Result
from edgekit_runtime.sources.base import Frame


class Flight:
    """At most `ahead` frames that were begun and not finished; results come in the order of the frames.

    More than one at once is for files, which can wait: each frame takes longer then, all together less.
    """

    def __init__(self, model: Model, ahead: int) -> None:
        self._model = model
        self._ahead = ahead
        self._begun: deque[Callable[[], Result]] = deque()

    def send(self, frame: Frame | npt.NDArray[np.uint8]) -> Iterator[Result]:
        """Begins with a frame; yields results for which it had to wait, to keep to the limit. Raises as the model
        does.
        """
        self._begun.append(self._model.start(frame))
        while len(self._begun) >= self._ahead:
            yield self._begun.popleft()()

    def land(self) -> Iterator[Result]:
        """Waits for what is on its way. Raises EngineError."""
        while self._begun:
            yield self._begun.popleft()()
