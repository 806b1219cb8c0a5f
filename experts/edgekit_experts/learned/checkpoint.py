"""A checkpoint of `transformers`, by name or folder: never a line of its code, never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from edgekit_experts.learned.hub import no_checkpoint, without_hub
from edgekit_runtime.errors import ExpertError


class Checkpoint:
    """What the hub or a folder has under a name; files are downloaded when they are asked for."""

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def config(self) -> Any:
        """Its configuration. Raises ExpertError when there is none."""
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        try:
            from transformers import AutoConfig
        except ImportError as error:
            raise ExpertError(
                "Pretrained experts need the package transformers.", hint="pip install 'edgekit[experts]'"
            ) from error
        try:
            return AutoConfig.from_pretrained(
                self.name, trust_remote_code=False, local_files_only=without_hub(self.name)
            )
        except (OSError, ValueError) as error:
            raise no_checkpoint(self.name, first_line(error), "config.json") from error

    @cached_property
    def digest(self) -> str:
        """Of the weights. Raises ExpertError where they are not in safetensors."""
        path = self._file("model.safetensors.index.json") or self._file("model.safetensors")
        if path is None:
            raise ExpertError(
                f"The checkpoint {self.name!r} has no weights in safetensors.",
                hint="Others can run code when they are loaded; convert it first.",
            )
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """What is done to pictures; empty where the checkpoint does not say."""
        if path := self._file("preprocessor_config.json"):
            table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        elif path := self._file("processor_config.json"):
            table = json.loads(path.read_text(encoding="utf-8")).get("image_processor", {})
        else:
            table = {}
        return table

    def load(self, kind: Any, **settings: Any) -> Any:
        """The torch module, as the class `kind` of `transformers` has it; `settings` go before its configuration."""
        import torch
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            model = kind.from_pretrained(
                self.name,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                local_files_only=without_hub(self.name),
                **settings,
            )
        except (OSError, ValueError) as error:
            raise ExpertError(
                f"The checkpoint {self.name!r} cannot be loaded: {first_line(error)}",
                hint="A name needs a connection (or an earlier download), a folder config.json and model.safetensors.",
            ) from error
        return model.eval()

    def _file(self, name: str) -> Path | None:
        """A file of it; None where it has none of that name."""
        from transformers.utils.hub import cached_file

        local = without_hub(self.name)
        found = cached_file(self.name, name, local_files_only=local, _raise_exceptions_for_missing_entries=False)
        return Path(found) if found else None


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
