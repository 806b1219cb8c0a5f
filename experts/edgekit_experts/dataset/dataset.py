"""A data set: a folder, or a place in an object store, that is a Zarr 3 group with one group per video."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit_experts.dataset.array import ATTRIBUTES, METADATA
from edgekit_experts.dataset.names import check_name, closest
from edgekit_experts.dataset.storage import Storage, open_storage
from edgekit_experts.dataset.video import SPLITS, Video, VideoInfo
from edgekit_runtime.errors import DataError

FORMAT = "edgekit-dataset"
VERSION = 1

AT_A_TIME = 16  # videos: a store that is far away answers many questions at once


class Dataset:
    """Open with `Dataset.open` or `Dataset.create`.

    `video` gives a view that remembers what it read of the states; open the data set again to see what another
    process has written since.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._videos: dict[str, Video] = {}
        self._made: set[str] = set()  # of videos; METADATA where this object made the data set itself

    @property
    def location(self) -> str:
        """The folder or URL; opens this data set again."""
        return self._storage.location

    @staticmethod
    def exists(location: Path | str) -> bool:
        """Whether there is something to open. Raises DataError where that cannot be told."""
        return open_storage(location).get(METADATA) is not None

    @classmethod
    def open(cls, location: Path | str) -> Dataset:
        """The data set in a folder or behind a URL such as `s3://bucket/data`. Raises DataError where there is none."""
        return cls._opened(open_storage(location))

    @classmethod
    def _opened(cls, storage: Storage) -> Dataset:
        data = storage.get(METADATA)
        if data is None:
            raise DataError(
                f"There is no data set at {storage.location}.",
                hint="`edgekit extract VIDEO -o DATA` makes one from video, `edgekit import` from pictures.",
            )
        try:
            table = json.loads(data)["attributes"][ATTRIBUTES]
            known = table["format"] == FORMAT
            version = int(table["version"])
        except (KeyError, TypeError, ValueError):
            known, version = False, 0
        if not known:
            raise DataError(f"{storage.location} is not an edgekit data set.", hint="Give another place.")
        if version > VERSION:
            raise DataError(
                f"{storage.location} was written by a newer edgekit (format {version}, this one reads {VERSION}).",
                hint="Update edgekit.",
            )
        return cls(storage)

    @classmethod
    def create(cls, location: Path | str) -> Dataset:
        """Opens the data set there, making an empty one if there is nothing yet.

        Raises DataError when something else is there.
        """
        storage = open_storage(location)
        if storage.get(METADATA) is None:
            if storage.list("."):
                raise DataError(
                    f"{storage.location} exists and is not a data set.", hint="Give an empty or a new folder with -o."
                )
            attributes = {ATTRIBUTES: {"format": FORMAT, "version": VERSION}}
            table = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
            storage.put(METADATA, json.dumps(table, indent=1).encode() + b"\n")
            data = cls._opened(storage)
            data._made.add(METADATA)
            return data
        return cls._opened(storage)

    @property
    def videos(self) -> tuple[str, ...]:
        """Names in alphabetical order."""
        keys = {name: f"{name}/{METADATA}" for name in self._storage.list(".") if name != METADATA}
        found = self._storage.get_many(keys.values())
        return tuple(name for name, key in keys.items() if key in found)

    def video(self, name: str) -> Video:
        """Raises DataError for an unknown name or damaged metadata."""
        if name not in self._videos:
            data = self._storage.get(f"{name}/{METADATA}")
            if data is None:
                raise DataError(f"{self.location} has no video {name!r}.", hint=closest(name, self.videos))
            try:
                self._videos[name] = Video(self._storage, name, VideoInfo.from_json(data))
            except ValueError as error:
                raise DataError(
                    f"{self._storage.address(f'{name}/{METADATA}')} cannot be read: {error}.",
                    hint="Restore or remove that folder.",
                ) from error
        return self._videos[name]

    def add_video(self, name: str, info: VideoInfo) -> Video:
        """A new video, or the one of that name if it comes from the same source.

        Raises DataError when the name is taken by another video.
        """
        check_name(name, "video")
        if info.split not in SPLITS:
            raise DataError(f"{info.split!r} is not a split.", hint=f"Splits are {', '.join(SPLITS)}.")
        if name in self.videos:
            video = self.video(name)
            self._same(video, info)
            return video
        video = Video(self._storage, name, info)
        video.save()
        self._videos[name] = video
        self._made.add(name)
        return video

    @contextmanager
    def nothing_left_empty(self) -> Iterator[None]:
        """Where the work inside fails, takes back what this object made and nothing was written to.

        That is: videos without a state, then the data set. What a person finds afterwards is what was there before,
        and all that was done.
        """
        try:
            yield
        except BaseException:
            for name in sorted(self._made - {METADATA}):
                with suppress(DataError, FileNotFoundError):  # somebody else is at work there, or has removed it
                    self._discard_empty(name)
            if METADATA in self._made and self._storage.list(".") == [METADATA]:
                self._storage.delete(METADATA)
                self._remove_folder(".")
            raise

    def _discard_empty(self, name: str) -> None:
        with self._storage.lock(name):
            parts = self._storage.list(name)
            if any(self._storage.list(f"{name}/{part}/state") for part in parts):
                return
            # The metadata first: half a video is none.
            for part in [METADATA, *parts]:
                self._storage.delete(f"{name}/{part}")
        self._videos.pop(name, None)
        self._made.discard(name)
        self._remove_folder(name)

    def _remove_folder(self, prefix: str) -> None:
        with suppress(OSError):  # it is not empty after all, or no folder but a URL
            Path(self._storage.address(prefix)).rmdir()

    def _same(self, video: Video, info: VideoInfo) -> None:
        if video.info.source.get("fingerprint") != info.source.get("fingerprint"):
            raise DataError(
                f"{self.location} already has another video named {video.name!r}, from {video.info.source.get('uri')}.",
                hint="Give this one another name, or write to another data set.",
            )
        if video.size != info.size:
            raise DataError(
                f"{video.name} is {_by(video.size)} in {self.location}, not {_by(info.size)}.",
                hint="Use the same --size, or write to another data set.",
            )
        if video.split != info.split:
            raise DataError(
                f"{video.name} is in the split {video.split!r} of {self.location}, not in {info.split!r}.",
                hint="Use the same --split, or write to another data set.",
            )

    def content_hash(self) -> str:
        """16 hexadecimal digits that change with any declaration or state; reads no frame."""
        digest = hashlib.sha256()
        with ThreadPoolExecutor(AT_A_TIME, "hash") as pool:
            for fingerprint in pool.map(lambda name: self.video(name).fingerprint(), self.videos):
                digest.update(fingerprint)
        return digest.hexdigest()[:16]

    @contextmanager
    def writing(self, name: str) -> Iterator[Video]:
        """The video for one writer alone; leftovers of interrupted writes are removed, whosever they are."""
        with self._storage.lock(name):
            self._storage.sweep(name)
            self._videos.pop(name, None)
            try:
                yield self.video(name)
            finally:
                self._storage.sweep(name)


def _by(size: tuple[int, int]) -> str:
    """(height, width), as messages write it."""
    return f"{size[1]}x{size[0]}"
