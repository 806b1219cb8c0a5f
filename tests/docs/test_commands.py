"""Every command that a page shows is one that the program takes; and it is run, unless it is said why not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import stand_ins
from blocks import Block, blocks, mentions, pages
from command_lines import FaultError, check, check_mention, words_of

from edgekit.cli import main
from edgekit_runtime.cli import main as run_main

# Shorter than a page says it, and what this machine does not have by something that it has.
SUBSTITUTES = (
    (r"--camera \d+", "--source 'test:?size=160x96&fps=0&frames=3'"),
    (r"--profile laptop-cpu\b", "--profile laptop-cpu.toml"),
    (r"--steps \d+", "--steps 2"),
    (r"frames=(24|8)\b", "frames=2"),
    (r"size=320x192", "size=160x96"),
    (r"--source '?world:\S+ --frames \d+", r"--source 'world:7?size=160x96' --frames 3"),
    (r"-c quick.toml", "-c train.toml"),
    (r"^(edgekit (train|distill) (?!.*-c ).*)", r"\1 -c train.toml"),
    (r"--sink web(?= |$)", "--sink null"),  # its port may be taken: tests/runtime/test_web.py
    (r"^(edgekit bench .*)", r"\1 --frames 20"),
    (r"^(edgekit(-run| run) (?!.*--sink ).*)", r"\1 --sink null"),
    (r"(?<= --profile )mine.toml", "laptop-cpu.toml"),
)

# Commands of ours that are read, and not carried out here.
NOT_RUN = {
    r"s3://": "needs an object store: tests/experts/test_remote.py has one",
    r"--engine ray": "starts a cluster: tests/experts/test_cluster.py",
    r"--model ": "downloads weights: tests/toolkit/test_offshelf.py has a network of its own",
    r"docs/experts.md edgekit extract": "downloads weights: each expert has a test of its own",
    r"docs/index.md edgekit extract drone.mp4": "downloads weights",
    r"edgekit doctor": "its exit status is that of the machine: tests/toolkit/test_doctor.py",
    r"--source (phone:|'gst:)": "needs a phone, or GStreamer: test_phone.py and test_gstreamer.py of tests/runtime",
    r"--profile nvidia-rtx": "takes the bundle of another device: tests/toolkit/test_tensorrt.py",
    r"docs/devices.md edgekit build --profile jetson": "the same",
    r"edgekit-run prepare": "needs a GPU: tests/runtime/test_tensorrt_engine.py",
    r"edgekit-run service": "would install it: tests/runtime/test_service.py",
    r"edgekit-run student.edgekit depth.edgekit": "needs a bundle for depth: tests/runtime/test_beside.py",
    r"--table street.toml": "tests/experts/test_docs.py runs it",
}

# Without these a page cannot begin: it makes them itself.
BEGINS_WITHOUT = {"docs/importing.md": ("data",), "docs/index.md": ("data", "runs", "build")}


def shell_blocks() -> list[Block]:
    return [block for block in blocks() if block.kind == "shell"]


def test_every_block_is_of_a_known_kind() -> None:
    unknown = [str(block) for block in blocks() if not block.kind]
    assert not unknown, "say the language after the fence, or the program in PROGRAMS"


@pytest.mark.parametrize("block", shell_blocks(), ids=str)
def test_every_command_is_one_that_its_program_takes(block: Block) -> None:
    for command in block.commands:
        try:
            check(command)
        except FaultError as fault:
            pytest.fail(f"{block}: {command}: {fault}")


@pytest.mark.parametrize(("page", "command"), mentions())
def test_commands_within_sentences_exist_with_their_options(page: str, command: str) -> None:
    try:
        check_mention(command)
    except FaultError as fault:
        pytest.fail(f"{page}: {command}: {fault}")


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("edgekit biuld", "build"),
        ("edgekit build --profil x", "--profile"),
        ("edgekit bundle shw a.edgekit", "show"),
        ("edgekit import frames", "DIR"),
        ("edgekit run --camera first", "--camera"),
        ("edgekit-run model.edgekit --camera 0 --sinks null", "unrecognized arguments: --sinks"),
        ("pip install 'edgekit[expert]'", "no extra 'expert'"),
        ("make tests", "no target 'tests'"),
        ("python recipes/no.py", "no script"),
        ("edgekt run", "what is 'edgekt'"),
    ],
)
def test_a_command_that_no_program_takes_is_found(command: str, fault: str) -> None:
    with pytest.raises(FaultError, match=re.escape(fault)):
        check(command)


@pytest.mark.parametrize("command", ["edgekit biuld", "edgekit eval MODEL --memebers N", "edgekit-run --nothing"])
def test_a_mention_of_what_is_not_there_is_found(command: str) -> None:
    with pytest.raises(FaultError, match=r"there is no"):
        check_mention(command)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stand-ins")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stand_ins.make(folder)
    return folder


PAGES_WITH_COMMANDS = sorted({block.page for block in shell_blocks()})


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS)
def test_the_commands_of_a_page_work_one_after_the_other(
    page: str, kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(kit, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for name in BEGINS_WITHOUT.get(page, ()):
        shutil.rmtree(name)
    for block in blocks():
        if block.page != page:
            continue
        # `# mine.toml` on the first line of a block names the file that it is.
        if named := re.match(r"# ([\w-]+\.(toml|py))\n", block.text):
            Path(named[1]).write_text(block.text, encoding="utf-8")
        for command in block.commands if block.kind == "shell" else ():
            program, *_ = words_of(command)
            if program not in ("edgekit", "edgekit-run") or any(
                re.search(each, f"{page} {command}") for each in NOT_RUN
            ):
                continue
            status = carry_out(command)
            assert status == 0, f"{block}: {command}\n{capfd.readouterr().err}"


def test_a_data_set_is_read_in_pytorch_as_the_page_shows(
    kit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = (block for block in blocks() if block.page == "docs/reading.md" and block.kind == "python")
    monkeypatch.chdir(kit)
    exec(block.text, {})
    said = capsys.readouterr().out
    assert "rgb (4, 48, 64, 3) [True, True, True, True]" in said
    assert "depth (2, 48, 64, 1) [True, True]" in said


def carry_out(command: str) -> int:
    for pattern, substitute in SUBSTITUTES:
        command = re.sub(pattern, substitute, command)
    program, *arguments = words_of(command)
    _make_way(arguments)
    return main(arguments) if program == "edgekit" else run_main(arguments)


def _make_way(arguments: list[str]) -> None:
    """What a stand-in stood for is made by the page itself now. Data sets are added to."""
    if "-o" not in arguments or arguments[0] in ("extract", "import", "derive"):
        return
    target = Path(arguments[arguments.index("-o") + 1])
    for path in (target, target.with_name(f"{target.name}.pub")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def test_no_reason_for_not_running_is_left_over() -> None:
    lines = [f"{block.page} {command}" for block in shell_blocks() for command in block.commands]
    assert [pattern for pattern in NOT_RUN if not any(re.search(pattern, line) for line in lines)] == []
    assert {page.name for page in pages()} >= {"README.md", "index.md"}
