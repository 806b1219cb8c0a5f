"""Reads a data set through DataLoader workers, in a process of its own: `workers.py DATA fork|spawn`.

DataLoader leaves a handler of SIGCHLD in the process that had workers, for good; tests that come later should not
have to live with it.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch.utils.data import DataLoader

from edgekit_experts.dataset import Dataset
from edgekit_student.samples import ModalityDataset


def main(path: str, start: str) -> None:
    data = Dataset.open(path)
    names = sorted({name for video in data.videos for name in data.video(video).modalities})
    samples = ModalityDataset(data, names, missing="mask", size=(48, 64), cache_bytes=20_000)
    alone = [samples[index] for index in range(len(samples))]
    loader = DataLoader(samples, batch_size=5, num_workers=2, multiprocessing_context=start, persistent_workers=True)
    for epoch in range(2):
        batches = list(loader)
        for name in alone[0]:
            joined = torch.cat([batch[name] for batch in batches]).numpy()
            np.testing.assert_array_equal(joined, np.stack([sample[name] for sample in alone]))
        print(f"epoch {epoch}: {[len(batch['rgb']) for batch in batches]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
