"""The expert graph: which modality is made from which, checked before a frame is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgekit_experts.config import Config
from edgekit_experts.dataset.declaration import Declaration
from edgekit_experts.dataset.names import closest
from edgekit_experts.expert import Expert
from edgekit_experts.registry import find_expert
from edgekit_runtime.errors import EdgekitError, ExpertError
from edgekit_runtime.modality import Modality

_BRINGING_SOURCES = "Flights (world:SEED) bring truth along, imported folders what lies beside their pictures."


@dataclass(frozen=True)
class Node:
    """One modality to make. `inputs` maps each required name to whether it is a stream of the source (True) or
    another node (False).
    """

    name: str
    expert: Expert
    declaration: Declaration
    inputs: Mapping[str, bool]

    @property
    def modality(self) -> Modality:
        return self.declaration.modality


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which each comes after its inputs; `wanted` are the ones to store."""

    nodes: tuple[Node, ...]
    wanted: frozenset[str]

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def closure(self, names: Iterable[str]) -> frozenset[str]:
        """These nodes and all that they are made from."""
        needed = set(names)
        for node in reversed(self.nodes):
            if node.name in needed:
                needed |= {name for name, stream in node.inputs.items() if not stream}
        return frozenset(needed)

    def mermaid(self) -> str:
        """A drawing in the language of https://mermaid.js.org."""
        lines = ["graph LR", "    frames([frames])"]
        for node in self.nodes:
            lines.append(f'    {_id(node.name)}["{node.name}<br/>{node.declaration.expert}"]')
            for name, stream in node.inputs.items():
                origin = f"source_{_id(name)}([{name}])" if stream else _id(name)
                lines.append(f"    {origin} --> {_id(node.name)}")
            if not node.inputs:
                lines.append(f"    frames --> {_id(node.name)}")
        return "\n".join(lines) + "\n"


def build_graph(
    config: Config,
    streams: Sequence[Modality] = (),
    only: Sequence[str] = (),
    declared: Mapping[str, str] | None = None,
) -> Graph:
    """Builds every expert and checks that what it is given is what it can use.

    `streams` are the modalities that the source brings along; `declared` has the hashes of their declarations where
    they are stored in the data set itself, so that what is made of them is stale when they change. With `only`, the
    named modalities and what they are made from are kept. Raises ExpertError on an unknown expert, parameter or name,
    on a cycle, and where an input is of a kind that its consumer cannot use.
    """
    for name in only:
        if name not in config:
            raise ExpertError(f"--only: the configuration has no modality {name!r}.", hint=closest(name, config))
    known_streams = {modality.name: modality for modality in streams}
    built = {name: _build(name, table) for name, table in config.items()}
    links = {name: _links(name, entry.expert, built, known_streams) for name, entry in built.items()}
    nodes: dict[str, Node] = {}
    for name in _ordered(links):
        nodes[name] = _node(name, built[name], links[name], nodes, known_streams, declared or {})
    graph = Graph(tuple(nodes.values()), frozenset(nodes))
    if not only:
        return graph
    kept = graph.closure(only)
    return Graph(tuple(node for node in graph.nodes if node.name in kept), kept)


@dataclass(frozen=True)
class _Built:
    expert: Expert
    spec: str
    params: Mapping[str, Any]
    digest: str


def _build(name: str, table: Mapping[str, Any]) -> _Built:
    params = {key: value for key, value in table.items() if key != "expert"}
    try:
        registered = find_expert(table["expert"])
        expert, complete = registered.build(params)
    except EdgekitError as error:
        raise ExpertError(f"[{name}] {error.args[0]}", hint=error.hint) from error
    return _Built(expert, registered.name, complete, registered.digest)


def _links(name: str, expert: Expert, built: Mapping[str, _Built], streams: Mapping[str, Modality]) -> dict[str, bool]:
    """Each required name, and whether it is a stream. A modality may be made from the stream of its own name."""
    links = {}
    for required in expert.requires:
        if required in built and required != name:
            links[required] = False
        elif required in streams:
            links[required] = True
        elif required == name:
            raise ExpertError(
                f"[{name}] is made from {name!r}, which the source would have to bring along.", hint=_BRINGING_SOURCES
            )
        else:
            raise ExpertError(
                f"[{name}] needs {required!r}, which nothing makes and the source does not bring along.",
                hint=f"{closest(required, {*built, *streams} - {name})} {_BRINGING_SOURCES}".strip(),
            )
    return links


def _ordered(links: Mapping[str, Mapping[str, bool]]) -> list[str]:
    """Names with every input before its consumers, otherwise as in the file; raises ExpertError on a cycle."""
    order: list[str] = []
    path: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name in path:
            cycle = [*path[path.index(name) :], name]
            raise ExpertError(
                f"The experts wait for each other: {' -> '.join(cycle)}.", hint="Break the cycle in the configuration."
            )
        path.append(name)
        for required, stream in links[name].items():
            if not stream:
                visit(required)
        path.pop()
        order.append(name)

    for name in links:
        visit(name)
    return order


def _node(
    name: str,
    built: _Built,
    links: Mapping[str, bool],
    nodes: Mapping[str, Node],
    streams: Mapping[str, Modality],
    declared: Mapping[str, str],
) -> Node:
    inputs = {key: streams[key] if stream else nodes[key].modality for key, stream in links.items()}
    try:
        modality = replace(built.expert.produces(inputs), name=name)
    except EdgekitError as error:
        raise ExpertError(f"[{name}] {error.args[0]}", hint=error.hint) from error
    hashes = {}
    for key, stream in links.items():
        if not stream:
            hashes[key] = nodes[key].declaration.hash
        elif key in declared:
            hashes[key] = declared[key]
        else:  # no modality has a colon in its name: a stream is never taken for a stored array of the same name
            hashes[f"source:{key}"] = Declaration(streams[key], "source").hash
    identity = "-".join(part for part in (built.digest, built.expert.identity) if part)
    declaration = Declaration(modality, built.spec, built.params, hashes, identity)
    return Node(name, built.expert, declaration, links)


def _id(name: str) -> str:
    return "".join(sign if sign.isalnum() else "_" for sign in name)
