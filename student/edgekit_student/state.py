"""The state of a training in a file: all that a resumed one needs to end as an uninterrupted one would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgekit_runtime.errors import CheckpointError
from edgekit_runtime.files import flush, whole
from edgekit_student.holdout import EarlyStop
from edgekit_student.ranks import world
from edgekit_student.settings import Optimisation, differences

STATE = "training.safetensors"


@dataclass(frozen=True)
class TrainingState:
    """What `run/training.safetensors` holds beside the step; `average` are the averaged (EMA) weights by name."""

    model: nn.Module
    optimizer: Any
    average: Mapping[str, Tensor]
    precision: Any
    settings: Optimisation
    early_stop: EarlyStop | None = None

    def save(self, run: Path, step: int) -> None:
        """Writes the state after `step` steps; the file appears whole or not at all."""
        from safetensors.torch import save

        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        metadata = {
            "step": str(step),
            "settings": self.settings.model_dump_json(),
            "devices": str(world()),
            # Of 16-mixed: by how much small gradients are scaled.
            "precision": json.dumps(self.precision.state_dict()),
        }
        if self.early_stop:
            tensors |= {f"best.{name}": value for name, value in self.early_stop.best.items()}
            metadata["early_stop"] = json.dumps(self.early_stop.history)
        payload = save(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            metadata=metadata,
        )
        run.mkdir(parents=True, exist_ok=True)
        with whole(run / STATE) as partial:
            partial.write_bytes(payload)
            flush(partial)

    def load(self, run: Path) -> int:
        """Puts everything back and returns the number of steps that are done, 0 when there is no file.

        Raises CheckpointError when the file is damaged or belongs to other settings. Batch size, accumulation,
        devices and precision may differ, as long as a step sees as many samples.
        """
        from safetensors import SafetensorError, safe_open

        path = run / STATE
        if not path.exists():
            return 0
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                written = Optimisation.model_validate_json(metadata["settings"])
                before, now = _essence(written, int(metadata.get("devices", 1))), _essence(self.settings, world())
                if before != now:
                    raise CheckpointError(
                        f"{path} was written with other optimisation settings than those asked for now: "
                        f"{', '.join(differences(before, now))}.",
                        hint="Resume with the same settings (batch, accumulate and --devices may change if their "
                        "product stays), or begin again in another folder.",
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self.model.load_state_dict(_under("model.", tensors))
            for name, value in _under("average.", tensors).items():
                self.average[name].copy_(value)
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in _under("optimizer.", tensors).items():
                index, key = name.split(".", 1)
                state.setdefault(int(index), {})[key] = value
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
            scaling = json.loads(metadata.get("precision", "{}"))
            if scaling and self.precision.state_dict():
                self.precision.load_state_dict(scaling)
            if self.early_stop:
                self.early_stop.resume(json.loads(metadata["early_stop"]), _under("best.", tensors))
            return int(metadata["step"])
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
            raise CheckpointError(
                f"The training state {path} cannot be resumed: {error}",
                hint="Remove the file to begin again, or resume with the data and settings it was written with.",
            ) from error


def _essence(settings: Optimisation, devices: int) -> dict[str, Any]:
    """What may not change between two parts of one training."""
    table = settings.model_dump(mode="json", exclude={"batch", "accumulate", "precision"})
    return {**table, "samples of a step": settings.batch * settings.accumulate * devices}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
