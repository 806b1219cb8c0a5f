"""SIGINT and SIGTERM: out within two seconds in every state, with what was recorded playable."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bundles import ONNXRUNTIME, manifest_for, slow_onnx_files, write_folder

from edgekit_runtime import open_source

IN_TIME_S = 2.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def edgekit_run(bundle: Path, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """The command, with a log in JSON."""
    command = [sys.executable, "-m", "edgekit_runtime", str(bundle), "--log-format", "json", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def camera(bundle: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A camera in the network: a stream, and the process that sends it."""
    port = free_port()
    with edgekit_run(bundle, "--source", "test:?size=320x180&fps=25", "--sink", f"web:{port}") as process:
        said(process, "watch at")
        yield f"http://127.0.0.1:{port}/stream", process


def said(process: subprocess.Popen[str], text: str) -> str:
    """Waits for a message of the log."""
    for line in process.stderr:
        message = json.loads(line)["message"]
        if text in message:
            return message
    raise AssertionError(f"it ended and never said {text!r}")


def ends(process: subprocess.Popen[str], number: int) -> None:
    process.send_signal(number)
    assert process.wait(IN_TIME_S) == 0


def plays(path: Path) -> bool:
    with open_source(path) as recording:
        return sum(1 for _ in recording) > 0


@pytest.mark.parametrize("program", ["edgekit_runtime", "edgekit"])
def test_while_its_modules_are_being_imported(program: str):
    """Ctrl-C, wherever it falls: quietly, with the status of an interruption. What Python says before it has come to
    the program's first file is Python's own.
    """
    arguments = ["run", "--bundle", "none.edgekit"] if program == "edgekit" else ["none.edgekit"]
    command = [sys.executable, "-m", program, *arguments, "--source", "test:", "--sink", "null"]
    heard = 0
    for delay_ms in range(20, 400, 15):
        with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
            time.sleep(delay_ms / 1e3)
            process.send_signal(signal.SIGINT)
            said = process.stderr.read()
        if process.returncode == 130:
            heard += 1
            assert said == "" or (program == "edgekit" and said.startswith("Interrupted."))
        assert f"/{program}/" not in said, f"after {delay_ms} ms:\n{said}"
        if "no bundle" in said:  # it was faster
            break
    assert heard


def test_while_it_is_being_opened(small_bundle: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/stream"
        with edgekit_run(small_bundle, "--source", address, "--sink", "null") as process:
            silent.settimeout(30)
            with silent.accept()[0]:
                ends(process, signal.SIGTERM)


def test_while_its_source_is_stalled(small_bundle: Path, tmp_path: Path):
    out = tmp_path / "out.mp4"
    with (
        camera(small_bundle) as (address, server),
        edgekit_run(small_bundle, "--source", address, "--sink", f"file:{out}") as process,
    ):
        said(process, address)
        time.sleep(1)
        server.send_signal(signal.SIGSTOP)
        said(process, "stalled: no frame for")
        ends(process, signal.SIGTERM)
    assert plays(out)


def test_while_it_looks_for_its_source(small_bundle: Path, tmp_path: Path):
    out = tmp_path / "out.mp4"
    with (
        camera(small_bundle) as (address, server),
        edgekit_run(small_bundle, "--source", address, "--sink", f"file:{out}") as process,
    ):
        said(process, address)
        time.sleep(1)
        server.kill()
        said(process, "retrying: ")
        ends(process, signal.SIGINT)
    assert plays(out)


@pytest.mark.parametrize("source", ["test:?size=320x180", "test:?size=320x180&fps=0"], ids=["live", "file"])
def test_while_it_is_paused(small_bundle: Path, tmp_path: Path, source: str):
    out = tmp_path / "out.mp4"
    with edgekit_run(small_bundle, "--source", source, "--sink", f"file:{out}", "--sink", "web:0") as process:
        port = re.search(r":(\d+)/", said(process, "watch at"))[1]
        time.sleep(0.5)
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
        connection.request("POST", "/view", json.dumps({"paused": True}), {"X-Edgekit": "1"})
        assert connection.getresponse().status == 204
        connection.close()
        time.sleep(0.3)
        ends(process, signal.SIGTERM)
    assert plays(out)


def test_a_signal_the_second_time_ends_it_at_once(small_bundle: Path):
    with edgekit_run(small_bundle, "--source", "test:", "--sink", "null") as process:
        said(process, "test:")
        process.send_signal(signal.SIGSTOP)  # so that both arrive before it can have ended
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        assert process.wait(IN_TIME_S) == -signal.SIGTERM


def test_while_a_slow_engine_is_at_work(tmp_path: Path):
    """DPT on a small board takes seconds a frame; its thread must not come back into a Python that is taken down."""
    files = slow_onnx_files(64, 96, products=60)
    bundle = write_folder(tmp_path / "slow", files, manifest_for(files, (ONNXRUNTIME,), 64, 96).to_json())
    with edgekit_run(bundle, "--source", "test:?fps=0&size=96x64", "--sink", "null") as process:
        said(process, "test:")
        time.sleep(0.3)
        ends(process, signal.SIGTERM)
