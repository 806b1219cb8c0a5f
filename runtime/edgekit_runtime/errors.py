"""The exception tree of all rooms.

    EdgekitError
    ├── UsageError         what the caller asked for makes no sense (exit status 2)
    ├── SourceError        a video, stream, camera or folder cannot be read
    ├── SinkError          a result cannot be shown or written
    ├── BundleError        a bundle is missing, broken, altered or from another version
    ├── EngineError        an inference engine is absent or failed
    ├── DataError          a data set is missing, broken or does not fit
    ├── ExpertError        an expert or the expert graph is wrong
    ├── CheckpointError    a checkpoint is missing, broken or of another architecture
    ├── ProfileError       a device profile is unknown or invalid
    └── BuildError         no candidate could be built or passed the accuracy gate

Every message says what is wrong and where; `hint` says what to do about it.
"""

from __future__ import annotations


class EdgekitError(Exception):
    """Base of all errors that a person may cause or mend; shown without a traceback."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n{self.hint}" if self.hint else message


class UsageError(EdgekitError):
    exit_status = 2


class SourceError(EdgekitError):
    pass


class SinkError(EdgekitError):
    pass


class BundleError(EdgekitError):
    pass


class EngineError(EdgekitError):
    pass


class DataError(EdgekitError):
    pass


class ExpertError(EdgekitError):
    pass


class CheckpointError(EdgekitError):
    pass


class ProfileError(EdgekitError):
    pass


class BuildError(EdgekitError):
    pass
