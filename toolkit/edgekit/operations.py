"""What an engine or a converter cannot do, by the names of the operations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from edgekit_runtime.errors import BuildError

# How the tools say it: OpenVINO's front ends, torch.onnx, ONNX Runtime.
_TOLD = (
    re.compile(r"No conversion rule found for operations: (.+)"),
    re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'"),
    re.compile(r"Fatal error: (\S+?)(?:\(-?\d+\))? is not a registered function/op"),
    re.compile(r"No Op registered for (\w+)"),
    re.compile(r"Could not find an implementation for (\w+)"),
)
STANDARD = ("", "ai.onnx")
_RUNTIMES_OWN = ("com.microsoft", "ai.onnx.ml")
_HINT = "Replace them in the network, or take an engine that has them: another profile."


def unsupported_in(text: str) -> tuple[str, ...]:
    """The operations that an error message of a converter or an engine complains of."""
    found = [name.strip() for told in _TOLD for match in told.findall(text) for name in match.split(",")]
    return tuple(dict.fromkeys(found))


def refusal(network: str, what: str, operations: Iterable[str]) -> BuildError:
    """`what` is who cannot run them, such as `OpenVINO`."""
    return BuildError(f"{network} has operations that {what} does not know: {', '.join(operations)}.", hint=_HINT)


@contextmanager
def named(network: str, what: str) -> Iterator[None]:
    """What a converter or an engine refuses, as BuildError that names the operations where it does."""
    try:
        yield
    except BuildError:
        raise
    except Exception as error:  # the tools' errors share no base class
        text = str(error)
        if operations := unsupported_in(text):
            raise refusal(network, what, operations) from error
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        reason = lines[0][:300] if lines else type(error).__name__
        raise BuildError(f"{what} cannot take {network}: {reason}") from error


def unknown_operations(model: Any) -> tuple[str, ...]:
    """Operations of an `onnx.ModelProto` that neither ONNX nor ONNX Runtime nor the file itself defines."""
    import onnx

    own = {(function.domain, function.name) for function in model.functions}
    opset = next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 1)

    def known(node: Any) -> bool:
        if node.domain in STANDARD:
            return bool(onnx.defs.has(node.op_type, max_inclusive_version=opset))
        return node.domain in _RUNTIMES_OWN or (node.domain, node.op_type) in own

    strange = [node for node in nodes(model.graph) if not known(node)]
    return tuple(dict.fromkeys(".".join(filter(None, (node.domain, node.op_type))) for node in strange))


def nodes(graph: Any) -> Iterator[Any]:
    """All nodes of an `onnx.GraphProto`, those of branches and loops too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from nodes(inner)
