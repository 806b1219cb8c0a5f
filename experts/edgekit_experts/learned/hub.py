"""Whether a checkpoint has to be on this disk, or can be asked of the hub."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from edgekit_runtime.errors import ExpertError

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_PATIENCE_S = 5.0


def on_hub(model: str) -> bool:
    """Whether this is the name of a checkpoint, not the path of one."""
    return bool(_NAME.fullmatch(model)) and not Path(model).exists()


def without_hub(model: str) -> bool:
    """Whether a checkpoint has to be on this disk already."""
    return not (on_hub(model) and hub_answers())


def no_checkpoint(model: str, reason: str, file: str) -> ExpertError:
    """Why there is none of that name; `file` is what the folder of one holds."""
    if on_hub(model) and not hub_answers():
        return ExpertError(
            f"The checkpoint {model!r} is not here, and its hub cannot be reached.",
            hint="Connect for a first download, or give the folder of a checkpoint as `model`.",
        )
    return ExpertError(
        f"There is no checkpoint {model!r}: {reason}",
        hint=f"A name needs a connection (or an earlier download); a folder holds {file}.",
    )


@cache
def hub_answers() -> bool:
    """Asked once: the hub's library itself would try six times for every file, with a line for each."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE_S)
    except Exception:  # of whichever HTTP library the hub's uses; or offline mode
        return False
    return True
