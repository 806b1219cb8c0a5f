"""Writing bundles: a folder or one `.edgekit` zip that is there whole or not at all.

Equal contents give equal bytes: entries are sorted and carry no time of their own.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import BuildError
from edgekit_runtime.files import digest_bytes, flush, whole
from edgekit_runtime.manifest import MANIFEST, FileEntry, Manifest
from edgekit_runtime.signature import SIGNATURE

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_PLAIN_FILE = 0o100644 << 16


def file_entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """Size and SHA-256 of every file, as the manifest lists them."""
    return {name: digest_bytes(data) for name, data in sorted(files.items())}


def contents(bundle: Bundle) -> dict[str, bytes]:
    """Everything in a bundle, as it is, its signature too; each file is checked once more. Raises BundleError."""
    signature = {SIGNATURE: bundle.signature.to_json()} if bundle.signature else {}
    return {MANIFEST: bundle.text, **signature, **{name: bundle.read(name) for name in bundle.manifest.files}}


def write_folder(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """An unpacked bundle in a new folder; for places that nobody else looks at while it is written."""
    unpack(folder, {MANIFEST: manifest.to_json().encode(), **files})


def unpack(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_zip(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """One `.edgekit` file, replaced in one step. Raises BuildError when it cannot be written."""
    pack(path, {MANIFEST: manifest.to_json().encode(), **files})


def pack(path: Path, files: Mapping[str, bytes]) -> None:
    """The zip of these files, manifest and all. Raises BuildError when it cannot be written."""
    check_writable(path)
    with explained(path), whole(path) as partial:
        with zipfile.ZipFile(partial, "w") as archive:
            for name, data in sorted(files.items()):
                entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = _PLAIN_FILE
                entry.create_system = 3  # Unix, wherever it was written
                archive.writestr(entry, data, compresslevel=9)
        flush(partial)


def check_writable(path: Path) -> None:
    """Fails now, not after the minutes of a build, when `path` cannot be written. Raises BuildError."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """What goes wrong in writing `path`, as BuildError."""
    if path.is_dir():
        raise BuildError(f"{path} is a folder.", hint="Remove it, or choose another place with -o DIR.")
    try:
        yield
    except OSError as error:
        free = ""
        if error.errno == errno.ENOSPC:
            free = f" ({shutil.disk_usage(path.parent).free >> 20} MB are free)"
        raise BuildError(
            f"{path} cannot be written: {(error.strerror or str(error)).lower()}{free}.",
            hint="Choose another place with -o DIR." if not free else "Free some space, or choose another -o DIR.",
        ) from error


@contextlib.contextmanager
def temporary_files() -> Iterator[None]:
    """What goes wrong in writing temporary files, ours or OpenVINO's, as BuildError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        place = tempfile.gettempdir()
        free = shutil.disk_usage(place).free >> 20
        raise BuildError(
            f"Temporary files cannot be written to {place} ({free} MB are free): {str(error).splitlines()[-1]}.",
            hint="Free some space, or name another folder in the variable TMPDIR.",
        ) from error
