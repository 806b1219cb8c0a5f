"""What experts there are: what each makes, what it needs, where its weights come from.

Nothing of it is written down twice: every expert is built from the `example` of its class, those that need no weights
as one graph over the synthetic world, and the facts are read off what was built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit_experts.expert import Expert
from edgekit_experts.graph import Graph, build_graph
from edgekit_experts.registry import BUILTIN, Registered, find_expert, names
from edgekit_experts.taxonomies import CITYSCAPES
from edgekit_experts.world.modalities import TRUTH
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.modality import Kind, Modality

STREET_LABELS = Modality("street_labels", Kind.LABELS, taxonomy=CITYSCAPES)
STREAMS = (*TRUTH, STREET_LABELS)
"""What examples may name beside other experts."""

ANY = "any"


@dataclass(frozen=True)
class Entry:
    """One expert. `makes` is a kind of modality, `needs` are kinds, or the frames that are looked at; `weights` is the
    name of a checkpoint, "your file", or empty where none are needed.
    """

    name: str
    makes: str
    needs: tuple[str, ...]
    weights: str
    usage: str
    summary: str


def catalogue() -> list[Entry]:
    """Every expert that a configuration may name, in alphabetical order."""
    graph = example_graph()
    kinds = {modality.name: modality.kind.value for modality in STREAMS}
    kinds |= {node.name: node.modality.kind.value for node in graph.nodes}
    return [_entry(find_expert(name), kinds) for name in names()]


def example_graph(more: Mapping[str, Mapping[str, Any]] | None = None) -> Graph:
    """All experts that need no weights, each a node of its own name, made from `STREAMS` and each other.

    `more` are examples of others, which are given their weights. Plug-ins whose example does not fit are left out.
    """
    own = [name for name in sorted(BUILTIN) if not find_expert(name).cls.weights_from]
    config = {**_examples(own), **{name: {"expert": name, **example} for name, example in (more or {}).items()}}
    graph = build_graph(config, STREAMS)
    for name in names():
        if name in BUILTIN or find_expert(name).cls.weights_from:
            continue
        try:
            graph = build_graph({**config, **_examples([name])}, STREAMS)
        except EdgekitError:
            continue
        config |= _examples([name])
    return graph


def _examples(experts: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    return {name: {"expert": name, **find_expert(name).cls.example} for name in experts}


def _entry(registered: Registered, kinds: Mapping[str, str]) -> Entry:
    cls = registered.cls
    makes = cls.makes or kinds.get(registered.name, "")
    try:
        needs = _needs(registered.build(cls.example)[0], makes, kinds)
    except EdgekitError:  # of somebody else, without an example
        needs = ()
    return Entry(registered.name, makes, needs, cls.weights_from, registered.usage(), registered.summary())


def _needs(expert: Expert, makes: str, kinds: Mapping[str, str]) -> tuple[str, ...]:
    if expert.requires:
        return (ANY,) if makes == ANY else tuple(dict.fromkeys(kinds.get(name, ANY) for name in expert.requires))
    return ("frames",) if any(expert.context) else ("frame",)
