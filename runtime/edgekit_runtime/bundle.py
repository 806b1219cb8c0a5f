"""Bundles: a directory or one `.edgekit` zip, verified before any native parser sees a byte of it.

Nothing missing, nothing unlisted, no links, no paths that leave it, every size and SHA-256 as stated; reads are bounded
by these sizes. `Bundle.read` checks again the bytes that it returns, from which engines are opened: a file that is
changed after verification cannot slip in.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from edgekit_runtime.errors import BundleError
from edgekit_runtime.files import digest_bytes, digest_stream
from edgekit_runtime.manifest import MANIFEST, FileEntry, Manifest
from edgekit_runtime.signature import MAX_SIGNATURE_BYTES, SIGNATURE, Signature, check_signature

SUFFIX = ".edgekit"
MAX_MANIFEST_BYTES = 4 << 20
MAX_FILES = 1000
MAX_TOTAL_BYTES = 8 << 30
# Weights hardly compress and XML by a factor of twenty or so; deflate ends at a thousand.
MAX_COMPRESSION = 250
SMALL_FILE_BYTES = 4 << 20

_COPY_AGAIN = "The file was cut short or altered: copy it again, or build it again with `edgekit build`."
_READ_ERRORS = (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `path` is where it lies, `manifest` what it says about itself, `text` its very bytes.

    `signature` is what lies beside it, if anything does; it was verified where a key was given. `larger` is the bundle
    of which this one is the next smaller size, if it is.
    """

    path: Path
    manifest: Manifest
    text: bytes = field(repr=False)
    signature: Signature | None = None
    larger: Bundle | None = None

    def smaller(self) -> Bundle | None:
        """The same for the next smaller frames, None where it has none."""
        manifest = self.manifest.reduced()
        return None if manifest is None else replace(self, manifest=manifest, larger=self)

    def read(self, name: str) -> bytes:
        """The bytes of one file, checked against the manifest once more. Raises BundleError."""
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f"{self.path}: there is no {name} in the bundle.", hint=_COPY_AGAIN)
        with _open_container(self.path) as container, container.open(name) as file:
            data = _bounded(file, entry.size)
        if digest_bytes(data) != entry:
            raise BundleError(f"{self.path}: {name} is not what the manifest says.", hint=_COPY_AGAIN)
        return data


def open_bundle(path: str | Path, *, key: Path | None = None) -> Bundle:
    """Opens and verifies a bundle: a directory with a `manifest.json`, a zip of one, or a folder with one such zip.

    With `key`, a public Ed25519 key (PEM), it must be signed by that. Raises BundleError when it is missing, damaged,
    altered, not signed so, from a newer schema, or holds anything that a bundle never holds (links, unlisted files,
    paths that leave it); UsageError where the key cannot be read.
    """
    path = locate_bundle(path)
    with _open_container(path) as container:
        sizes = container.sizes()
        text, manifest, signature = _read_manifest(path, container, sizes, key)
        _check_listing(path, sizes, manifest.files)
        for name, entry in manifest.files.items():
            with container.open(name) as file:
                if digest_stream(file.read, limit=entry.size) != entry:
                    raise BundleError(
                        f"{path}: {name} is not what the manifest says (SHA-256 differs).", hint=_COPY_AGAIN
                    )
    return Bundle(path, manifest, text, signature)


def peek_manifest(path: str | Path, *, key: Path | None = None) -> Manifest:
    """What a bundle says about itself, without a look at its other files. Raises as `open_bundle` does."""
    path = locate_bundle(path)
    with _open_container(path) as container:
        return _read_manifest(path, container, container.sizes(), key)[1]


def _read_manifest(
    path: Path, container: _Container, sizes: Mapping[str, int], key: Path | None
) -> tuple[bytes, Manifest, Signature | None]:
    text = _small(path, container, sizes, MANIFEST, MAX_MANIFEST_BYTES)
    if text is None:
        raise _no_bundle(path)
    signed = _small(path, container, sizes, SIGNATURE, MAX_SIGNATURE_BYTES)
    signature = None if signed is None else Signature.from_json(signed, f"{path}/{SIGNATURE}")
    if key is not None:
        check_signature(text, signature, key, str(path))
    return text, Manifest.from_json(text, f"{path}/{MANIFEST}"), signature


def _small(path: Path, container: _Container, sizes: Mapping[str, int], name: str, most: int) -> bytes | None:
    """A file that says something of the others; None where there is none."""
    if name not in sizes:
        return None
    if sizes[name] > most:
        raise BundleError(f"{path}: {name} has {sizes[name]} bytes, which it never needs.")
    with container.open(name) as file:
        return _bounded(file, most)


def locate_bundle(path: str | Path) -> Path:
    """`path` itself, or the one bundle in the folder that `edgekit build` wrote it to.

    Raises BundleError for a folder that is none and holds none, or several.
    """
    path = Path(path)
    try:
        if not path.is_dir() or (path / MANIFEST).exists():
            return path
        inside = sorted(path.glob(f"*{SUFFIX}"))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise BundleError(
            f"{path} holds {len(inside)} bundles.", hint=f"Name one: {', '.join(str(each) for each in inside)}"
        )
    raise _no_bundle(path)


def _no_bundle(path: Path) -> BundleError:
    return BundleError(
        f"{path} is not a bundle: it has no {MANIFEST}.",
        hint=f"A bundle is what `edgekit build` writes: one {SUFFIX} file (or its folder), or that file unpacked.",
    )


def _check_listing(path: Path, sizes: Mapping[str, int], files: Mapping[str, FileEntry]) -> None:
    if sum(entry.size for entry in files.values()) > MAX_TOTAL_BYTES:
        raise BundleError(f"{path}: the files would take more than {MAX_TOTAL_BYTES >> 30} GB.")
    for name in sorted(files.keys() - sizes.keys()):
        raise BundleError(f"{path}: {name} is missing.", hint=_COPY_AGAIN)
    for name in sorted(sizes.keys() - files.keys() - {MANIFEST, SIGNATURE}):
        raise BundleError(
            f"{path}: {name!r} is not listed in the manifest.", hint="A bundle holds nothing but its listed files."
        )
    for name, entry in files.items():
        if sizes[name] != entry.size:
            raise BundleError(
                f"{path}: {name} has {sizes[name]} bytes, the manifest says {entry.size}.", hint=_COPY_AGAIN
            )


def _bounded(file: IO[bytes], size: int) -> bytes:
    """At most `size` bytes and one more, which gives an oversized file away."""
    return file.read(size + 1)


class _Container(ABC):
    """Directory and zip behind one face."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Relative path and stated size of everything inside; raises BundleError on what may not be there."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]: ...

    def close(self) -> None:
        return None


@contextmanager
def _open_container(path: Path) -> Iterator[_Container]:
    """Turns whatever goes wrong while reading into a BundleError that names the bundle."""
    container: _Container | None = None
    try:
        if path.is_dir():
            container = _Directory(path)
        elif path.is_file():
            container = _Zip(path)
        else:
            raise BundleError(
                f"There is no bundle at {path}.",
                hint="Build one with `edgekit build --profile NAME`, or check the path.",
            )
        yield container
    except _READ_ERRORS as error:
        raise BundleError(f"{path} cannot be read: {error or type(error).__name__}.", hint=_COPY_AGAIN) from error
    finally:
        if container is not None:
            container.close()


class _Directory(_Container):
    def __init__(self, root: Path) -> None:
        self._root = root

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        pending = [self._root]
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    name = Path(entry.path).relative_to(self._root).as_posix()
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        found[name] = entry.stat(follow_symlinks=False).st_size
                    else:
                        raise BundleError(f"{self._root}: {name!r} is a link or a device, not a plain file.")
                    if len(found) + len(pending) > MAX_FILES:
                        raise BundleError(f"{self._root} holds more than {MAX_FILES} files; no bundle does.")
        return found

    def open(self, name: str) -> IO[bytes]:
        # O_NOFOLLOW and O_NONBLOCK: a link or a pipe that took the file's place a moment ago is refused, not read.
        flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self._root / name, os.O_RDONLY | flags)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise BundleError(f"{self._root}: {name!r} is not a plain file.")
        return os.fdopen(descriptor, "rb")


class _Zip(_Container):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip = zipfile.ZipFile(path)

    def sizes(self) -> dict[str, int]:
        entries = self._zip.infolist()
        if len(entries) > MAX_FILES:
            raise BundleError(f"{self._path} holds more than {MAX_FILES} files; no bundle does.")
        found: dict[str, int] = {}
        for entry in entries:
            name = entry.orig_filename
            if name in found:
                raise BundleError(f"{self._path}: {name!r} is there twice.")
            # The upper half of external_attr holds the Unix mode where the packer wrote one.
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or entry.is_dir():
                raise BundleError(f"{self._path}: {name!r} is a link or a folder, not a plain file.")
            if entry.file_size > SMALL_FILE_BYTES and entry.file_size > MAX_COMPRESSION * entry.compress_size:
                raise BundleError(f"{self._path}: {name!r} unpacks to {entry.file_size} bytes; a zip bomb.")
            found[name] = entry.file_size
        return found

    def open(self, name: str) -> IO[bytes]:
        return self._zip.open(name)

    def close(self) -> None:
        self._zip.close()
