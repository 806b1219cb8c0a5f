"""The expert graph: everything that is wrong is said before a frame is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit_experts.config import load_config, parse_config, shipped_config
from edgekit_experts.graph import Graph, build_graph
from edgekit_experts.registry import find_expert, names
from edgekit_experts.taxonomies import CAMVID, CITYSCAPES
from edgekit_experts.world.modalities import TRUTH
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality

STREAMS = (
    Modality("a", Kind.LABELS, taxonomy=CAMVID),
    Modality("b", Kind.LABELS, taxonomy=CITYSCAPES),
    Modality("depth", Kind.DEPTH),
)


def graph_of(text: str, *only: str) -> Graph:
    return build_graph(parse_config(text, "test.toml"), STREAMS, only)


def test_the_shipped_sets_are_sound() -> None:
    assert [node.name for node in build_graph(shipped_config("default")).nodes] == ["rgb", "hsv", "canny", "dis_flow"]
    world = build_graph(shipped_config("world"), TRUTH)
    assert {"labels", "vote", "normals", "simulated_depth"} <= {node.name for node in world.nodes}
    truths = {node.name for node in world.nodes if node.modality.truth}
    assert truths == {"labels", "true_depth", "true_normals", "true_flow"}


def test_every_expert_that_is_listed_loads_and_says_what_it_is() -> None:
    for name in names():
        expert = find_expert(name)
        assert expert.summary().strip(), name
        assert expert.usage().startswith(name)


def test_inputs_come_before_their_consumers_whatever_the_order_of_the_file() -> None:
    graph = graph_of(
        '[vote]\nexpert = "majority_vote"\nof = ["a", "mapped"]\n'
        '[mapped]\nexpert = "label_map"\nof = "b"\nto = "camvid"\n'
    )
    assert [node.name for node in graph.nodes] == ["mapped", "vote"]


def test_only_keeps_what_is_named_and_what_it_needs() -> None:
    text = (
        '[edges]\nexpert = "canny"\n[mapped]\nexpert = "label_map"\nof = "b"\nto = "camvid"\n'
        '[vote]\nexpert = "majority_vote"\nof = ["a", "mapped"]\n'
    )
    assert {node.name for node in graph_of(text, "vote").nodes} == {"mapped", "vote"}
    with pytest.raises(ExpertError, match="no modality 'vot'") as caught:
        graph_of(text, "vot")
    assert "'vote'" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('[e]\nexpert = "cany"', r"\[e\] There is no expert 'cany'", "'canny'"),
        ('[e]\nexpert = "canny"\nhihg = 3', "no parameter 'hihg'", "'high'"),
        ('[e]\nexpert = "canny"\nlow = 200', "make no sense", "low"),
        ('[e]\nexpert = "canny"\nlow = "x"', "expert 'canny'", "low: float"),
        ('[e]\nexpert = "canny"\nlow = true', "low must be a number, not True", "low: float"),
        ('[e]\nexpert = "majority_vote"\nof = 3', "of must be a list, not 3", "of: Sequence"),
        ('[e]\nexpert = "majority_vote"\nof = ["a", 3]', "each entry of .of. must be a text, not 3", "of: Sequence"),
        ('[e]\nexpert = "dis_flow"\ngap = 1.5', "gap must be a whole number, not 1.5", "gap: int"),
        ('[e]\nexpert = "normals"\nof = "a"\nintrinsics = ["x"]', "entry of .intrinsics. must be", "tuple"),
        ('[e]\nexpert = "label_map"\nof = "a"', "needs the parameter 'to'", "label_map("),
        ('[e]\nexpert = "normals"\nof = "deth"', "needs 'deth', which nothing makes", "'depth'"),
        ('[e]\nexpert = "normals"\nof = "a"', "needs depth, but 'a' is labels", "of"),
        ('[e]\nexpert = "normals"\nof = "e"', "source would have to bring along", "world:SEED"),
        ('[e]\nexpert = "majority_vote"\nof = ["a", "b"]', "one taxonomy", "label_map"),
        ('[e]\nexpert = "majority_vote"\nof = ["a"]', "two or more", ""),
        ('[e]\nexpert = "label_map"\nof = "a"\nto = "cityscapes"', "no table from 'camvid'", "table"),
        ('[e]\nexpert = "label_map"\nof = "a"\nto = "citiscapes"', "no taxonomy", "'cityscapes'"),
        ('[e]\nexpert = "dis_flow"\npreset = "fats"', "unknown preset", "'fast'"),
        (
            '[x]\nexpert = "given"\nof = "y"\n[y]\nexpert = "given"\nof = "x"\n',
            "x -> y -> x",
            "cycle",
        ),
        ("[e]\nlow = 3", "does not say which expert", "expert ="),
        ("e = 3", "does not say which expert", "expert ="),
        ('["../e"]\nexpert = "rgb"', "cannot be the name", ""),
        ("", "names no modality", ""),
        ("[e", "not valid TOML", ""),
    ],
)
def test_mistakes_are_named_with_a_way_out(text: str, message: str, hint: str) -> None:
    with pytest.raises(ExpertError, match=message) as caught:
        graph_of(text)
    assert hint in caught.value.hint


def test_a_missing_configuration_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExpertError, match="cannot be read"):
        load_config(tmp_path / "none.toml")


NEGATIVE = """
from edgekit_experts.expert import Expert
from edgekit_runtime.modality import Kind, Modality

class Negative(Expert):
    \"\"\"255 minus the frame.\"\"\"
    def produces(self, inputs):
        return Modality("negative", Kind.IMAGE, 3)
    def compute(self, batch):
        return 255 - batch.frames

class NotOne: ...
"""


def test_an_expert_of_your_own_is_a_class_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(NEGATIVE, encoding="utf-8")
    node = graph_of(f'[n]\nexpert = "{path}:Negative"')["n"]
    assert node.modality.name == "n"
    assert node.declaration.expert == "mine.py:Negative"
    path.write_text(NEGATIVE.replace("255 -", "254 -"), encoding="utf-8")
    assert graph_of(f'[n]\nexpert = "{path}:Negative"')["n"].declaration.hash != node.declaration.hash


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mine.py:Positive", r"mine.py has no 'Positive'\.\n.*Known: Expert, Kind, Modality, Negative"),
        ("mine.py:NotOne", "is not an expert"),
        ("broken.py:X", "cannot be imported"),
        ("none.py:X", "No such file"),
    ],
)
def test_a_file_that_is_no_expert_says_so(tmp_path: Path, spec: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(NEGATIVE, encoding="utf-8")
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    with pytest.raises(ExpertError, match=message):
        graph_of(f'[n]\nexpert = "{tmp_path / spec}"')


def test_a_parameter_changes_its_hash_and_that_of_all_downstream() -> None:
    text = '[m]\nexpert = "label_map"\nof = "b"\nto = "camvid"\n[v]\nexpert = "majority_vote"\nof = ["a", "m"]\n'
    table = Path(__file__).parents[2] / "experts/edgekit_experts/tables/cityscapes-to-camvid.toml"
    first, second = graph_of(text), graph_of(text.replace('to = "camvid"', f'to = "camvid"\ntable = "{table}"'))
    for name in ("m", "v"):
        assert first[name].declaration.hash != second[name].declaration.hash
    assert first["v"].declaration.hash == graph_of(text)["v"].declaration.hash


def test_the_drawing_names_every_node_and_link() -> None:
    drawing = graph_of('[m]\nexpert = "label_map"\nof = "b"\nto = "camvid"\n[e]\nexpert = "canny"').mermaid()
    assert drawing.startswith("graph LR\n")
    assert "source_b([b]) --> m" in drawing
    assert "frames --> e" in drawing
