"""Out of memory: which setting to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from edgekit_runtime.errors import EdgekitError
from edgekit_student.settings import Optimisation

# PyTorch has a type for this on GPUs only; the CPU's allocator, oneDNN and OpenCV say it in words.
_WORDS = ("can't allocate memory", "bad_alloc", "out of memory", "insufficient memory", "cublas_status_alloc_failed")


@contextmanager
def enough_memory(settings: Optimisation) -> Iterator[None]:
    """Raises EdgekitError that says what to lower when memory runs out within, on a GPU or on the CPU."""
    try:
        yield
    except Exception as error:
        if not ran_out(error):
            raise
        raise EdgekitError(
            f"The memory does not hold {settings.batch} sample{'s' * (settings.batch > 1)} at a time.",
            hint=f"{_what_to_lower(settings)} A state that was written before can be resumed so.",
        ) from error


def ran_out(error: Exception) -> bool:
    """Whether that is what an exception means."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error).lower() for words in _WORDS)


def _what_to_lower(settings: Optimisation) -> str:
    if settings.batch == 1:
        return "Set a smaller augmentation.crop, or take a smaller network."
    factor = next(factor for factor in range(2, settings.batch + 1) if settings.batch % factor == 0)
    return (
        f"Lower optimisation.batch to {settings.batch // factor} and raise optimisation.accumulate to "
        f"{settings.accumulate * factor}, which trains alike, or set a smaller augmentation.crop."
    )
