"""`edgekit status --html`: one page with everything in it, whatever the data set is called."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from edgekit.commands import data as commands
from edgekit_experts.dataset import Dataset, Video, VideoInfo
from edgekit_experts.status import read_status, spans
from edgekit_experts.status_page import human_size, render
from edgekit_experts.taxonomies import CAMVID
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.modality import Kind, Modality, Taxonomy

HOSTILE = "<img src=x onerror=document.title='taken'>"
VOID = {"meta", "img", "br", "wbr"}

app = typer.Typer()
commands.register(app)


def edgekit(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


class Page(HTMLParser):
    """Reads a page; every element that is opened must be closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def data(clip: Path, tmp_path: Path) -> Path:
    """A clip of 70 frames, 40 of them extracted, and a small flight."""
    path = tmp_path / "data"
    edgekit("extract", clip, "-o", path, "--frames", "0:40", "--only", "rgb,canny")
    edgekit("extract", "world:5?frames=3&size=160x96", "-o", path, "--only", "rgb,vote,normals")
    return path


def rendered(path: Path) -> str:
    opened = Dataset.open(path)
    return render(opened, read_status(opened))


def hand_made(path: Path, name: str) -> Video:
    video = Dataset.create(path).add_video(name, VideoInfo(10, (12, 16), 25.0))
    video.declare(Modality("rgb", Kind.IMAGE, 3), expert="rgb")
    video.write("rgb", 0, np.full((10, 12, 16, 3), 200, np.uint8))
    return video


def test_the_page_shows_every_video_and_modality_with_its_counts(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages" / "status.html"
    assert f"Page: {out}" in edgekit("status", data, "--html", out)
    page = Page(out.read_text(encoding="utf-8"))
    status = json.loads(edgekit("status", data, "--json"))
    for video in status["videos"]:
        assert video["name"] in page.text
        for row in video["modalities"]:
            assert row["name"] in page.text
    bars = [attributes["aria-label"] for attributes in page.of("div") if attributes.get("class") == "bar"]
    assert bars[0] == f"{status['done']} done, 0 stale, 0 failed, {status['missing']} not made"
    assert bars.count("40 done, 0 stale, 0 failed, 30 not made") == 2
    names = {row["name"] for video in status["videos"] for row in video["modalities"]}
    pictures = [image for image in page.of("img") if image["alt"]]
    assert {str(image["alt"]).split()[0] for image in pictures} == names
    for image in page.of("img"):
        kind, payload = str(image["src"]).split(",", 1)
        assert kind == "data:image/jpeg;base64"
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(payload), np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape[1] <= 480


def test_the_page_asks_nobody_for_anything(data: Path) -> None:
    text = rendered(data)
    page = Page(text)
    assert not page.of("script")
    assert not page.of("link")
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert "href" not in attributes
    assert "url(" not in text
    assert "http:" not in text
    assert "https:" not in text
    (policy,) = (meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'")


def test_json_and_page_go_together(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "status.html"
    document = json.loads(edgekit("status", data, "--html", out, "--json"))
    assert document["html"] == str(out)
    assert document["done"]
    assert out.stat().st_size > 5000


def test_failed_and_stale_frames_and_what_went_wrong(tmp_path: Path) -> None:
    video = hand_made(tmp_path / "data", "flight")
    video.declare(Modality("labels", Kind.LABELS, taxonomy=CAMVID), expert="net", params={"v": 1})
    video.write("labels", 0, np.zeros((4, 12, 16, 1), np.uint8))
    video.declare(Modality("labels", Kind.LABELS, taxonomy=CAMVID), expert="net", params={"v": 2})
    video.declare(Modality("depth", Kind.DEPTH, dtype="float16"), expert="far")
    for frame in (2, 3, 4, 8):
        video.fail("depth", frame, "out of memory\nsecond line")
    page = Page(rendered(tmp_path / "data"))
    assert "4 stale" in page.text
    assert "depth in flight, frames 2–4, 8 out of memory second line" in page.text
    assert page.text.count("out of memory") == 1
    assert page.text.count("no frame is done yet") == 2
    assert {"0 done, 4 stale, 0 failed, 6 not made", "0 done, 0 stale, 4 failed, 6 not made"} <= {
        attributes.get("aria-label") for attributes in page.of("div")
    }


def test_hostile_names_and_messages_are_text(tmp_path: Path) -> None:
    video = hand_made(tmp_path / "data", "flight")
    nasty = Taxonomy(HOSTILE, (HOSTILE,), ((255, 0, 0),))
    video.declare(Modality("labels", Kind.LABELS, unit=HOSTILE, taxonomy=nasty), expert=HOSTILE)
    video.fail("labels", 3, f"</pre><script>alert(1)</script>{HOSTILE}")
    shutil.move(tmp_path / "data" / "flight" / "labels", tmp_path / "data" / "flight" / HOSTILE)
    shutil.move(tmp_path / "data" / "flight", tmp_path / "data" / f'"{HOSTILE}')
    shutil.move(tmp_path / "data", tmp_path / HOSTILE)
    text = rendered(tmp_path / HOSTILE)
    page = Page(text)
    assert "<script" not in text
    assert "<img src=x" not in text
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert page.text.count(HOSTILE) >= 8


def test_a_damaged_frame_costs_its_picture_alone(tmp_path: Path) -> None:
    hand_made(tmp_path / "data", "flight")
    (tmp_path / "data" / "flight" / "rgb" / "c.0.0.0.0").write_bytes(b"damaged")
    page = Page(rendered(tmp_path / "data"))
    assert "rgb is damaged" in page.text
    assert not page.of("img")


def test_an_empty_data_set_has_a_page_too(tmp_path: Path) -> None:
    Dataset.create(tmp_path / "data")
    assert "None yet" in Page(rendered(tmp_path / "data")).text


def test_a_page_that_cannot_be_written_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgekitError, match="cannot be written"):
        edgekit("status", data, "--html", tmp_path)
    assert not list(tmp_path.parent.glob(".*partial"))


def test_numbers_as_people_read_them() -> None:
    assert [human_size(n) for n in (0, 999, 1000, 12_345, 1_234_567, 5e9, 3e12)] == [
        "0 B", "999 B", "1.0 kB", "12 kB", "1.2 MB", "5.0 GB", "3.0 TB",
    ]  # fmt: skip
    assert [spans([7]), spans([3, 9, 6, 5, 7, 8])] == ["frame 7", "frames 3, 5–9"]


def test_a_browser_draws_it_on_a_screen_and_on_a_phone(data: Path, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here to draw the page with")
    hostile = hand_made(data, "hostile")
    hostile.fail("rgb", 1, HOSTILE)
    hostile.declare(Modality("net", Kind.MASK), expert=HOSTILE)
    hostile.fail("net", 1, HOSTILE)
    out = tmp_path / "status.html"
    edgekit("status", data, "--html", out)
    # A phone's width is narrower than a headless window may be: the page is shown in a frame of that width.
    phone = tmp_path / "phone.html"
    phone.write_text(
        f'<body style="margin:0"><iframe src="{out.name}" style="border:0;width:390px;height:800px">', encoding="utf-8"
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'u'}"]
    for page, width in ((out, 1280), (phone, 500)):
        shot = tmp_path / f"{width}.png"
        window = [f"--window-size={width},800", f"--screenshot={shot}"]
        subprocess.run([browser, *options, *window, page.as_uri()], check=True, capture_output=True, timeout=60)
        drawn = cv2.imread(str(shot))[:, : min(width, 390)]
        # Words, bars in green, and the card's white: not a blank page, nor an error.
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100
        green = (drawn == (0x63, 0x9E, 0x2F)).all(axis=2)
        assert green.sum() > 500
    dumped = subprocess.run(
        [browser, *options, "--dump-dom", out.as_uri()], check=True, capture_output=True, encoding="utf-8", timeout=60
    )
    assert re.search("<title>(.*)</title>", dumped.stdout)[1] == "data – edgekit status"
