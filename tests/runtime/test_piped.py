"""Raw pictures on standard input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import pytest
from pattern_number import read_number

from edgekit_runtime import SourceError, SourceState, UsageError, open_source
from edgekit_runtime.sources.pattern import Pattern
from edgekit_runtime.sources.piped import PipedFrames, with_input_size

SIZE = (320, 180)
RGB = [Pattern(*SIZE).draw(number)[..., ::-1].tobytes() for number in range(20)]


@contextmanager
def piped(*, live: bool = False) -> Iterator[tuple[PipedFrames, BinaryIO]]:
    reader, writer = os.pipe()
    with PipedFrames("-", reader, SIZE, 25, live=live) as source, open(writer, "wb", buffering=0) as file:  # noqa: PTH123
        yield source, file
    os.close(reader)


def write_all(file: BinaryIO, pictures: list[bytes]) -> threading.Thread:
    def work() -> None:
        with suppress(BrokenPipeError), file:
            for data in pictures:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_every_picture_comes_in_order_with_its_colours_and_time() -> None:
    with piped() as (source, file):
        thread = write_all(file, RGB)
        frames = list(source)
        thread.join()
        assert source.state is SourceState.ENDED
    assert [read_number(frame.image) for frame in frames] == list(range(20))
    assert (frames[3].image == Pattern(*SIZE).draw(3)).all()
    assert [frame.timestamp_s for frame in frames] == pytest.approx([number / 25 for number in range(20)])
    assert (source.dropped, source.live) == (0, False)


def test_a_live_pipe_gives_only_the_newest() -> None:
    with piped(live=True) as (source, file):
        thread = write_all(file, RGB)
        thread.join()
        deadline = time.monotonic() + 5
        while source.dropped < 19 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [read_number(frame.image) for frame in source] == [19]


def test_an_input_that_ends_within_a_picture_names_the_size() -> None:
    with piped() as (source, file):
        thread = write_all(file, [RGB[0], RGB[1][:-1]])
        with pytest.raises(SourceError, match="in the middle of a picture of 320x180") as caught:
            list(source)
        thread.join()
        assert "--input-size" in caught.value.hint


def test_a_writer_that_says_nothing_holds_up_no_exit() -> None:
    with piped() as (source, file):
        file.write(RGB[0][:1000])
        assert source.read(0.2) is None
        began = time.monotonic()
        source.close()
        assert time.monotonic() - began < 0.5


def test_what_one_writes_the_other_reads(small_bundle: Path) -> None:
    program = [sys.executable, "-m", "edgekit_runtime", str(small_bundle), "--no-overlay"]
    write = [*program, "--source", "test:?fps=0&size=320x180&frames=30", "--sink", "stdout:rgb24"]
    read = [*program, "--source", "-", "--input-size", "320x180", "--sink", "null", "--json"]
    with subprocess.Popen(write, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        done = subprocess.run(read, stdin=writer.stdout, capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout)["frames"] == 30


@pytest.mark.parametrize("uri", ["-", "stdin:", "stdin:?size=1x1", "stdin:?size=320x180&live=2", "stdin:?fps=3"])
def test_what_makes_no_sense_is_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        open_source(uri)


def test_without_anything_piped_in_that_is_said() -> None:
    with pytest.raises(SourceError, match="nothing is piped in"):
        open_source("stdin:?size=320x180")


def test_a_size_is_for_standard_input_only() -> None:
    assert with_input_size("-", "320x180") == "stdin:?size=320x180"
    assert with_input_size("clip.mp4", None) == "clip.mp4"
    with pytest.raises(UsageError, match="--input-size is the size"):
        with_input_size("clip.mp4", "320x180")
