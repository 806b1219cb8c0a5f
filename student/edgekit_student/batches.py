"""Batches as a pure function of (seed, step): a resumed training sees just what an uninterrupted one would."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekit_runtime.errors import DataError
from edgekit_student.samples import Sample

Batch = dict[str, Tensor]


def batch_indices(count: int, number: int, batch: int, seed: int) -> list[int]:
    """Which samples batch `number` has: consecutive runs of an endless sequence of seeded permutations.

    The batches of one step, of one process or of several, do not overlap, as long as they fit into one epoch.
    """
    start = number * batch
    picks = []
    for position in range(start, start + batch):
        epoch, place = divmod(position, count)
        picks.append(int(_permutation(count, seed, epoch)[place]))
    return picks


def drawn_by_class(
    picks: list[int], areas: npt.NDArray[np.floating[Any]], share: float, rng: np.random.Generator
) -> list[int]:
    """`picks` of which `share` are replaced by frames drawn for a class: each class as often as any other, a frame as
    often as it has much of it. `areas` `(frames, classes)` is how much of each frame is of which class.

    Method: class uniform sampling (Zhu et al., arXiv 1812.01593).
    """
    chances = areas / np.maximum(areas.sum(axis=0), 1e-12)
    classes = np.flatnonzero(areas.sum(axis=0) > 0)
    return [
        int(rng.choice(len(areas), p=chances[:, rng.choice(classes)])) if rng.random() < share else pick
        for pick in picks
    ]


def _permutation(count: int, seed: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng((seed, epoch)).permutation(count)


def collate(samples: list[Sample]) -> Batch:
    """Stacks samples into tensors `(N, H, W, C)`, and `(N,)` for presence. Raises DataError where sizes differ."""
    for name, array in samples[0].items():
        if any(sample[name].shape != array.shape for sample in samples):
            raise DataError(
                f"Frames of different sizes do not fit into one batch ({name}).",
                hint="Read them with ModalityDataset(size=(height, width)), or crop them to one size.",
            )
    return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}


def prefetched(make: Callable[[int], Batch], start: int, stop: int, *, ahead: int = 3) -> Generator[Batch, None, None]:
    """Batches `start` to `stop`, made one thread ahead of the training step that uses them."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        waiting = [pool.submit(make, step) for step in range(start, min(start + ahead, stop))]
        try:
            for step in range(start, stop):
                batch = waiting.pop(0).result()
                if step + ahead < stop:
                    waiting.append(pool.submit(make, step + ahead))
                yield batch
        finally:
            for future in waiting:
                future.cancel()
