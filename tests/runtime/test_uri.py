"""Source URIs: what is a camera, what is a path, what is refused; secrets are never shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.errors import UsageError
from edgekit_runtime.sources.uri import parse_uri, redact


@pytest.mark.parametrize(
    ("text", "scheme", "body"),
    [
        ("camera:0", "camera", "0"),
        ("/dev/video2", "camera", "/dev/video2"),
        ("camera:1?size=1280x720&fps=30", "camera", "1"),
        ("clip.mp4", "file", "clip.mp4"),
        ("./odd:name.mp4", "file", "./odd:name.mp4"),
        ("file:odd:name.mp4", "file", "odd:name.mp4"),
        ("file:///tmp/a%20b.mp4", "file", "/tmp/a b.mp4"),
        (r"C:\clips\a.mp4", "file", r"C:\clips\a.mp4"),
        ("frames/*.png", "file", "frames/*.png"),
        ("what?.png", "file", "what?.png"),
        ("test:", "test", ""),
        ("world:7?fps=10", "world", "7"),
        ("rtsp://host/stream?a=b", "rtsp", "//host/stream?a=b"),
    ],
)
def test_scheme_and_body(text: str, scheme: str, body: str):
    uri = parse_uri(text)
    assert (uri.scheme, uri.body) == (scheme, body)


def test_options_are_checked():
    uri = parse_uri("camera:1?size=1280x720&fps=30")
    assert uri.size((0, 0)) == (1280, 720)
    assert uri.number("fps", 0, 1, 1000) == 30
    uri.check_options("size", "fps")
    with pytest.raises(UsageError, match="no option 'fps'"):
        uri.check_options("size")


@pytest.mark.parametrize("text", ["test:?fps=fast", "test:?fps=-1", "test:?fps=nan", "test:?fps=1e9"])
def test_numbers_out_of_range_are_refused(text: str):
    with pytest.raises(UsageError, match="fps must be a number from 0 to 1000"):
        parse_uri(text).number("fps", 30, 0, 1000)


@pytest.mark.parametrize("text", ["test:?size=big", "test:?size=0x0", "test:?size=99999x10", "test:?size=１２x３４"])
def test_sizes_out_of_range_are_refused(text: str):
    with pytest.raises(UsageError, match="WIDTHxHEIGHT"):
        parse_uri(text).size((960, 540))


@pytest.mark.parametrize("text", ["", "   ", "a\0b", "x" * 5000, "test:?fps", "test:?=3"])
def test_nonsense_is_refused(text: str):
    with pytest.raises(UsageError):
        parse_uri(text)


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://admin:hunter2@10.0.0.1:554/stream",
        "rtsp://hunter2@host/",
        "http://host/video?user=me&password=hunter2&x=1",
        "https://host/?token=hunter2",
        "camera https://a:hunter2@b/c failed: https://a:hunter2@b/c",
        "rtsp://admin:p@hunter2@host/",
        "http://host/?api_key=hunter2",
    ],
)
def test_secrets_are_never_shown(text: str):
    assert "hunter2" not in redact(text)
    assert "hunter2" not in parse_uri(text).text


def test_redaction_leaves_the_rest_alone():
    assert redact("rtsp://u:p@host:554/live?channel=1") == "rtsp://***@host:554/live?channel=1"
    assert redact("clips/a@b.mp4") == "clips/a@b.mp4"


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str):
    try:
        uri = parse_uri(text)
    except UsageError:
        return
    assert uri.scheme == uri.scheme.lower()
    assert all(isinstance(value, str) for value in uri.options.values())


@given(
    st.from_regex(r"[a-z]{2,6}://", fullmatch=True),
    st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=8, max_size=20).filter(
        lambda text: not set(text) & set("/?#")
    ),
)
def test_no_password_survives(scheme: str, password: str):
    assert password not in redact(f"{scheme}user:{password}@camera.example/live").removeprefix(scheme)


def test_a_size_that_is_too_small_is_told_what_is_allowed():
    with pytest.raises(UsageError, match="each from 16 to 8192, not '7x5'"):
        parse_uri("test:?size=7x5").size((0, 0))


def test_defaults_add_options_and_nothing_else():
    assert parse_uri("camera:0").with_defaults({}) == "camera:0"
    assert parse_uri("camera:0?fps=15").with_defaults({"fps": "30", "size": "64x48"}) == "camera:0?fps=15&size=64x48"
