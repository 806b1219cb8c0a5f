"""Data sets behind a URL, on a real S3 server of this machine: what holds in a folder holds there."""

from __future__ import annotations

import dataclasses
import json
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import fsspec
import numpy as np
import pytest
from clips import expert_file, files_of
from moto.server import ThreadedMotoServer

from edgekit.cli import main
from edgekit.locate import find_data
from edgekit_experts.config import parse_config
from edgekit_experts.dataset import Dataset, Video, VideoInfo, lease
from edgekit_experts.dataset.lease import Claim
from edgekit_experts.pipeline import ExtractOptions, extract
from edgekit_experts.status import read_status
from edgekit_experts.video import open_video
from edgekit_runtime.errors import DataError, UsageError
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.checkpoint import CheckpointConfig
from edgekit_student.samples import ModalityDataset

RGB = Modality("rgb", Kind.IMAGE, 3, "uint8", (0, 255))
SECRET = "wJalrXUtnFEMI"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that the environment names, too."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    nothing = str(tmp_path_factory.getbasetemp() / "nothing")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_SHARED_CREDENTIALS_FILE": nothing,
            "AWS_CONFIG_FILE": nothing,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            patch.setenv(name, value)
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[fsspec.AbstractFileSystem]:
    """Beside edgekit's, with connections of its own."""
    forget_connections()
    fs = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    yield fs
    close(fs)
    forget_connections()


@pytest.fixture
def s3(client: fsspec.AbstractFileSystem, server: str) -> fsspec.AbstractFileSystem:
    """The store with one empty bucket named `bucket`."""
    ask(f"{server}/moto-api/reset")
    client.mkdir("bucket")
    return client


def forget_connections() -> None:
    """The next one reads the environment anew."""
    kind = fsspec.get_filesystem_class("s3")
    for fs in kind._cache.values():
        close(fs)
    kind.clear_instance_cache()


def close(fs: fsspec.AbstractFileSystem) -> None:
    if fs._s3 is not None:
        fsspec.asyn.sync(fs.loop, fs._s3creator.__aexit__, None, None, None)


def ask(url: str, data: bytes = b"") -> None:
    with urlopen(Request(url, data, {"Content-Type": "text/plain"}, method="POST")) as answer:
        answer.read()


def objects(fs: fsspec.AbstractFileSystem, root: str = "bucket/data") -> dict[str, bytes]:
    return {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in fs.find(root)}


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 16, 3), np.uint8)


@pytest.fixture(params=["folder", "s3", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The same promises everywhere."""
    if request.param == "folder":
        yield (tmp_path / "data").as_uri()
    elif request.param == "s3":
        request.getfixturevalue("s3")
        yield "s3://bucket/data"
    else:
        yield "memory://bucket/data/"
        fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.fixture
def video(location: str) -> Video:
    video = Dataset.create(location).add_video("flight", VideoInfo(50, (12, 16), 25.0))
    video.declare(RGB, expert="test")
    return video


def test_what_is_written_is_read_again(location: str, video: Video) -> None:
    video.write("rgb", 0, frames(50))
    video.fail("rgb", 49, "blurred")
    data = Dataset.open(location)
    assert data.videos == ("flight",)
    np.testing.assert_array_equal(data.video("flight").read_many("rgb", 0, 50), frames(50))
    assert data.video("flight").done("rgb").all()
    assert data.content_hash() == Dataset.open(data.location).content_hash()
    assert read_status(data).size_bytes > frames(50).nbytes


def test_a_reader_follows_a_shard_that_is_rewritten(location: str, video: Video) -> None:
    whole = frames(32)
    video.write("rgb", 20, whole[20:])
    reader = Dataset.open(location).video("flight")
    np.testing.assert_array_equal(reader.read("rgb", 31), whole[31])
    for start in (10, 0):
        video.write("rgb", start, whole[start : start + 10])
        np.testing.assert_array_equal(reader.read("rgb", 31), whole[31])
        np.testing.assert_array_equal(reader.read("rgb", start), whole[start])
    video.declare(RGB, expert="test", params={"gain": 2})
    video.write("rgb", 0, whole[1:2])
    np.testing.assert_array_equal(reader.read("rgb", 0), whole[1])
    np.testing.assert_array_equal(reader.read("rgb", 31), whole[31])
    again = Dataset.open(location).video("flight")
    assert (again.done("rgb").sum(), again.stale("rgb").sum(), bool(again.stale("rgb")[31])) == (1, 31, True)


def test_a_listing_is_never_stale(location: str, video: Video) -> None:
    other = Dataset.open(location)
    assert other.videos == ("flight",)
    Dataset.open(location).add_video("second", VideoInfo(5, (12, 16), 25.0))
    assert other.videos == ("flight", "second")


def test_another_type_starts_the_array_afresh(location: str, video: Video) -> None:
    video.write("rgb", 0, frames(3))
    video.declare(Modality("rgb", Kind.IMAGE, 1, "uint8", (0, 255)), expert="test")
    again = Dataset.open(location).video("flight")
    assert not again.done("rgb").any()
    assert again.arrays["rgb"].shape == (50, 12, 16, 1)


def test_damage_and_foreign_objects_are_told(location: str, video: Video) -> None:
    video.write("rgb", 0, frames(3))
    storage = video._storage
    storage.put("flight/rgb/state/0.json", b"")
    storage.put("flight/rgb/state/notes.txt", b"mine")
    assert not Dataset.open(location).video("flight").done("rgb").any()
    storage.put("flight/rgb/c.0.0.0.0", b"short")
    with pytest.raises(DataError, match="damaged") as caught:
        Dataset.open(location).video("flight").read("rgb", 0)
    assert storage.address("flight/rgb/c.0.0.0.0") in caught.value.hint
    storage.put("flight/rgb/c.0.0.0.0", b"")
    with pytest.raises(DataError, match="damaged"):
        Dataset.open(location).video("flight").read("rgb", 0)
    storage.put("zarr.json", b'{"attributes": {"edgekit": {"format": "edgekit-dataset", "version": 99}}}')
    with pytest.raises(DataError, match="newer edgekit"):
        Dataset.open(location)
    storage.delete("zarr.json")
    assert not Dataset.exists(location)
    with pytest.raises(DataError, match="exists and is not a data set"):
        Dataset.create(location)


def test_a_second_writer_is_refused_and_a_reader_is_not(location: str, video: Video) -> None:
    with Dataset.open(location).writing("flight") as writer:
        writer.write("rgb", 0, frames(3))
        with pytest.raises(DataError, match="being written"), Dataset.open(location).writing("flight"):
            pass
        reader = Dataset.open(location)
        assert list(reader.video("flight").modalities) == ["rgb"]
        assert reader.video("flight").done("rgb").sum() == 3
    with pytest.raises(ZeroDivisionError), Dataset.open(location).writing("flight"):
        raise ZeroDivisionError
    with Dataset.open(location).writing("flight"):
        pass


KILLED = """
import sys
from edgekit_experts.config import parse_config
from edgekit_experts.pipeline import ExtractOptions, extract
from edgekit_experts.video import open_video
extract([open_video(sys.argv[1])], sys.argv[2], parse_config(sys.argv[3], "test"))
"""

ZARR = """
import sys, zarr
data = zarr.open_group(sys.argv[1], mode="r")
print(*sorted(name for name, _ in data.members(max_depth=None)), flush=True)
sys.stdout.buffer.write(data["clip/rgb"][30:34].tobytes())
"""


def test_killed_it_resumes_to_the_bytes_of_a_folder(s3: fsspec.AbstractFileSystem, clip: Path, tmp_path: Path) -> None:
    slow = expert_file(tmp_path, "time.sleep(0.01 * len(batch.frames))\nreturn 255 - batch.frames\n")
    text = f'[rgb]\nexpert = "rgb"\n[dis_flow]\nexpert = "dis_flow"\n[mine]\nexpert = "{slow}:Mine"\n'
    url, config = "s3://bucket/data", parse_config(text, "test")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(clip), url, text], stderr=subprocess.PIPE)
    while process.poll() is None and not s3.glob("bucket/data/clip/*/state/*"):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert "clip/.lease" in objects(s3)
    before = read_status(Dataset.open(url)).done
    assert 0 < before < 3 * 70
    assert extract([open_video(str(clip))], url, config).written == 3 * 70 - before
    assert extract([open_video(str(clip))], url, config).written == 0
    extract([open_video(str(clip))], tmp_path / "data", config)
    assert objects(s3) == files_of(tmp_path / "data")
    # In a process of its own: zarr leaves its connections to the end of the process.
    read = subprocess.run([sys.executable, "-c", ZARR, url], capture_output=True, check=True).stdout
    members, frames = read.split(b"\n", 1)
    assert members == b"clip clip/dis_flow clip/mine clip/rgb"
    assert frames == Dataset.open(url).video("clip").read_many("rgb", 30, 34).tobytes()


def claim_of_another_machine(fs: fsspec.AbstractFileSystem, age: float) -> None:
    claim = dataclasses.replace(Claim.mine(), machine="elsewhere", host="node7", renewed=time.time() - age)
    fs.pipe_file("bucket/data/flight/.lease", claim.to_json())


@pytest.fixture
def flight(s3: fsspec.AbstractFileSystem) -> Dataset:
    data = Dataset.create("s3://bucket/data")
    data.add_video("flight", VideoInfo(50, (12, 16), 25.0)).declare(RGB, expert="test")
    return data


def test_the_lease_of_another_machine_counts_until_it_was_not_renewed_for_a_minute(
    s3: fsspec.AbstractFileSystem, flight: Dataset
) -> None:
    claim_of_another_machine(s3, age=50)
    with pytest.raises(DataError, match="on node7") as caught, flight.writing("flight"):
        pass
    assert "status" in caught.value.hint
    claim_of_another_machine(s3, age=70)
    with flight.writing("flight") as video:
        video.write("rgb", 0, frames(1))
    s3.pipe_file("bucket/data/flight/.lease", b"no claim")
    with flight.writing("flight"):
        pass
    assert not s3.exists("bucket/data/flight/.lease")


def test_a_lease_is_renewed_and_who_lost_it_writes_no_more(
    s3: fsspec.AbstractFileSystem, flight: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWED_EVERY", 0.05)

    def held() -> float:
        return float(json.loads(s3.cat_file("bucket/data/flight/.lease"))["renewed"])

    def eventually(condition: Callable[[], bool]) -> None:
        for _ in range(500):
            if condition():
                return
            time.sleep(0.02)
        pytest.fail("it never came")

    with flight.writing("flight") as video:
        first = held()
        eventually(lambda: held() > first)

        def refused() -> bool:
            # A renewal that was on its way may still overwrite the other claim once.
            claim_of_another_machine(s3, age=0)
            try:
                video.write("rgb", 0, frames(1))
            except DataError as error:
                return "taken over" in str(error)
            return False

        eventually(refused)
        after = objects(s3)
        with pytest.raises(DataError, match="taken over"):
            video.write("rgb", 32, frames(1))
        assert objects(s3) == after
    assert json.loads(s3.cat_file("bucket/data/flight/.lease"))["host"] == "node7"


def test_a_store_that_does_not_let_us_in_is_one_clear_error(
    s3: fsspec.AbstractFileSystem, server: str, flight: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(action: Callable[[], object]) -> tuple[str, str]:
        forget_connections()
        with pytest.raises(DataError) as caught:
            action()
        text = str(caught.value)
        assert len(text.splitlines()) == 2
        assert SECRET not in text
        return text.splitlines()[0], caught.value.hint

    for action in (Dataset.open, Dataset.create, Dataset.exists):
        message, hint = refusal(lambda action=action: action("s3://bukcet/data"))
        assert "no bucket 'bukcet'" in message
        assert "name" in hint
    with pytest.raises(DataError, match="no data set at s3://bucket/elsewhere"):
        Dataset.open("s3://bucket/elsewhere")
    ask(f"{server}/moto-api/reset-auth", b"0")
    message, hint = refusal(lambda: Dataset.open("s3://bucket/data"))
    assert "Not allowed to read s3://bucket/data/zarr.json" in message
    assert "AWS_ACCESS_KEY_ID" in hint
    ask(f"{server}/moto-api/reset-auth", b"inf")
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        message, hint = refusal(lambda: Dataset.create("s3://bucket/data"))
        assert "no credentials" in message
        assert "AWS_PROFILE" in hint
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        message, hint = refusal(lambda: Dataset.open("s3://bucket/data"))
        assert "cannot be reached" in message
        assert "AWS_ENDPOINT_URL" in hint
    forget_connections()


@pytest.mark.parametrize(
    ("location", "message", "hint"),
    [
        ("sftp://host/data", "cannot lie behind sftp://", "s3://"),
        ("s3://user:word@bucket/data", "holds a password", "AWS_ACCESS_KEY_ID"),
        ("s3://bucket/data?versionId=1", "not the place of a data set", "s3://bucket/data"),
        ("s3://", "not the place of a data set", "s3://bucket/data"),
        ("s3:/bucket/data", "a slash is missing", "text"),
        ("simplecache::s3://bucket/data", "cannot lie behind", "s3://"),
    ],
)
def test_urls_that_can_hold_no_data_set_are_refused(location: str, message: str, hint: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Dataset.create(location)
    assert hint in caught.value.hint
    assert "word" not in str(caught.value).replace("password", "")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # it was imported before
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DataError, match="needs a missing package") as caught:
        Dataset.open("s3://bucket/data")
    assert caught.value.hint == "pip install 'edgekit[s3]'"


def test_samples_come_from_the_store_in_this_process_and_in_others(flight: Dataset) -> None:
    flight.video("flight").write("rgb", 3, frames(4))
    samples = ModalityDataset(Dataset.open("s3://bucket/data"), ["rgb"], split="train")
    assert len(samples) == 4
    np.testing.assert_array_equal(samples[2]["rgb"], frames(4)[2])
    elsewhere = pickle.loads(pickle.dumps(samples))
    np.testing.assert_array_equal(elsewhere[3]["rgb"], frames(4)[3])
    # Whatever the forked process has open, its workers open for themselves.
    script = Path(__file__).parents[1] / "student" / "workers.py"
    command = [sys.executable, script, "s3://bucket/data", "fork"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
    assert (done.returncode, done.stdout) == (0, "epoch 0: [4]\nepoch 1: [4]\n"), done.stderr


def test_statistics_are_kept_in_the_store(flight: Dataset, s3: fsspec.AbstractFileSystem) -> None:
    flight.video("flight").write("rgb", 3, frames(4))
    counted = ModalityDataset(Dataset.open("s3://bucket/data"), ["rgb"]).statistics()
    (kept,) = s3.find("bucket/data/flight/rgb/kept")
    table = json.loads(s3.cat_file(kept))
    table["value"]["mean"] = [1.0, 2.0, 3.0]
    s3.pipe_file(kept, json.dumps(table).encode())
    again = ModalityDataset(Dataset.open("s3://bucket/data"), ["rgb"]).statistics()
    assert again == {"rgb": {"mean": [1.0, 2.0, 3.0], "std": counted["rgb"]["std"]}}


def test_the_commands_take_a_url(
    s3: fsspec.AbstractFileSystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def edgekit(*arguments: object) -> dict[str, object]:
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    url = "s3://bucket/data"
    made = edgekit("extract", "world:5?frames=3&size=160x96", "-o", url, "--only", "rgb,labels,vote,canny")
    status = edgekit("status", url)
    assert (status["location"], status["done"]) == (url, made["done"])
    assert edgekit("eval", "expert:vote", url, "--split", "train")["frames"] == 3
    edgekit("view", url, "-o", tmp_path / "x.png")
    edgekit("export", url, "-o", tmp_path / "npz")
    assert edgekit("import", "vre", tmp_path / "npz", "-o", "s3://bucket/again")["done"] == status["done"]
    config = CheckpointConfig("student", {}, (), (), {}, (96, 160), {"data": url})
    assert find_data(config, tmp_path) == url
    config.provenance["data"] = "s3://bucket/gone"
    assert find_data(config, tmp_path) is None
    config.provenance["data"] = "s3://bukcet/data"
    assert find_data(config, tmp_path) is None
    assert "no bucket 'bukcet'" in capsys.readouterr().err
    assert not Path("s3:").exists()


def test_a_run_that_makes_nothing_leaves_nothing_in_the_store(s3: fsspec.AbstractFileSystem, clip: Path) -> None:
    s3.pipe("bucket/mine.txt", b"somebody else's")
    videos, config = [open_video(str(clip))], parse_config('[rgb]\nexpert = "rgb"', "test")
    for place in ("s3://bucket/data", "s3://bucket/deep/er"):
        with pytest.raises(UsageError, match="none from 500 on"):
            extract(videos, place, config, ExtractOptions(frames=(500, 600)))
    assert s3.find("bucket") == ["bucket/mine.txt"]
    extract(videos, "s3://bucket/data", config, ExtractOptions(frames=(0, 4)))
    with pytest.raises(UsageError, match="none from 500 on"):
        extract(videos, "s3://bucket/data", config, ExtractOptions(frames=(500, 600)))
    assert Dataset.open("s3://bucket/data").video("clip").done("rgb").sum() == 4
