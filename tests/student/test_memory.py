"""Out of memory: the error says which setting to lower, and what was written stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekit_runtime.errors import EdgekitError
from edgekit_student.fit import STATE, fit
from edgekit_student.memory import ran_out
from edgekit_student.settings import Optimisation

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::UserWarning:lightning")


def exhaust(settings: Optimisation, run: Path) -> None:
    """At its third step it really asks the allocator for more than any machine has: 8 EiB less a little."""

    def loss(module: torch.nn.Module, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        if number >= 2 * settings.accumulate:
            torch.empty(2**60, dtype=torch.float32)
        return module(batch["x"]).sum()

    line = torch.nn.Linear(1, 1)
    fit(line, lambda number: {"x": torch.ones(1, 1)}, loss, settings, run, device="cpu")


@pytest.mark.parametrize(
    ("batch", "hint"),
    [
        (8, "Lower optimisation.batch to 4 and raise optimisation.accumulate to 2"),
        (9, "Lower optimisation.batch to 3 and raise optimisation.accumulate to 3"),
        (1, "smaller augmentation.crop"),
    ],
)
def test_the_error_says_what_to_lower_and_the_state_is_kept(tmp_path: Path, batch: int, hint: str) -> None:
    with pytest.raises(EdgekitError, match="memory does not hold") as caught:
        exhaust(Optimisation(steps=4, batch=batch, checkpoint_every=1, precision="32-true"), tmp_path)
    assert hint in caught.value.hint
    assert (tmp_path / STATE).exists()


def test_what_the_hint_says_goes_on_from_the_state(tmp_path: Path) -> None:
    with pytest.raises(EdgekitError, match="memory does not hold"):
        exhaust(Optimisation(steps=4, batch=8, checkpoint_every=1, precision="32-true"), tmp_path)
    lower = Optimisation(steps=4, batch=4, accumulate=2, checkpoint_every=1, precision="32-true")
    steps: list[int] = []
    fit(
        torch.nn.Linear(1, 1),
        lambda number: {"x": torch.ones(1, 1)},
        lambda module, batch, number: module(batch["x"]).sum(),
        lower,
        tmp_path,
        device="cpu",
        resume=True,
        on_progress=lambda progress: steps.append(progress.step),
    )
    assert steps == [3, 4]


def test_gpus_are_understood_and_other_errors_are_not_mistaken() -> None:
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert ran_out(MemoryError())
    assert not ran_out(RuntimeError("shape mismatch"))
