"""https for the page: a certificate that is made here, one of one's own, and what is said where there can be none."""

from __future__ import annotations

import shlex
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from web_page import port_of, serving

from edgekit_runtime.errors import SinkError
from edgekit_runtime.sinks.tls import Certificate, own_certificate
from edgekit_runtime.sources.phone import PhoneCamera, Wanted


def get(port: int, trusted: Path, name: str = "localhost") -> bytes:
    context = ssl.create_default_context(cafile=str(trusted))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=name) as secured,
    ):
        secured.sendall(b"GET /state HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: secured.recv(65536), b""))


def test_a_certificate_is_made_once_and_names_this_machine() -> None:
    made = own_certificate("0.0.0.0")
    assert made.key.stat().st_mode & 0o077 == 0
    before = made.chain.read_bytes()
    assert own_certificate("0.0.0.0").chain.read_bytes() == before
    with serving("0?tls=1") as sink:
        assert sink.address.startswith("https://127.0.0.1:")
        for name in ("localhost", "127.0.0.1", socket.gethostname()):
            assert get(port_of(sink), made.chain, name).startswith(b"HTTP/1.1 200")
    assert own_certificate("camera.example").chain.read_bytes() != before, "a name that was not in it"
    assert len(made.fingerprint.split(":")) == 32


def test_with_a_camera_other_machines_are_served_with_https_and_nobody_else_is() -> None:
    phone = PhoneCamera("phone:", Wanted(640, 360, 30))
    for argument, given, scheme in (
        ("0", phone, "http"),
        ("0.0.0.0:0", None, "http"),
        ("0.0.0.0:0", phone, "https"),
        ("0.0.0.0:0?tls=0", phone, "http"),
    ):
        with serving(argument, phone=given) as sink:
            assert sink.address.startswith(f"{scheme}://")


def test_plain_http_is_told_to_come_back_with_https() -> None:
    with serving("0?tls=1") as sink, socket.create_connection(("127.0.0.1", port_of(sink)), timeout=5) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head, _, body = b"".join(iter(lambda: raw.recv(65536), b"")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert f"Content-Length: {len(body)}".encode() in head
        assert b"https" in body


def test_whoever_dawdles_over_the_handshake_holds_up_nobody() -> None:
    with serving("0?tls=1") as sink, socket.create_connection(("127.0.0.1", port_of(sink))) as lazy:
        lazy.sendall(b"\x16\x03")
        assert get(port_of(sink), own_certificate("127.0.0.1").chain).startswith(b"HTTP/1.1 200")


def test_without_the_package_the_command_that_is_told_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("openssl"):
        pytest.skip("no openssl here")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(SinkError, match="cryptography is needed") as caught:
        own_certificate("0.0.0.0")
    _, command, option = caught.value.hint.splitlines()
    subprocess.run(shlex.split(command), cwd=tmp_path, check=True, capture_output=True)
    assert option == "--sink 'web:HOST:PORT?cert=certificate.pem&key=key.pem'"
    monkeypatch.chdir(tmp_path)
    with serving("0?cert=certificate.pem&key=key.pem") as sink:
        assert get(port_of(sink), tmp_path / "certificate.pem").startswith(b"HTTP/1.1 200")


def test_files_that_are_no_certificate_are_named(tmp_path: Path) -> None:
    made = own_certificate("127.0.0.1")
    with pytest.raises(SinkError, match=r"nowhere\.pem .* cannot be read: No such file"):
        Certificate(tmp_path / "nowhere.pem", made.key).context()
    (tmp_path / "junk.pem").write_text("junk", encoding="utf-8")
    with pytest.raises(SinkError, match=r"junk\.pem .* are no certificate and its key"):
        Certificate(tmp_path / "junk.pem", made.key).context()
