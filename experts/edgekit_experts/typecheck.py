"""Questions that an expert asks of its inputs' declarations before a frame is read."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality, Taxonomy


def expect(inputs: Mapping[str, Modality], name: str, kind: Kind, who: str) -> Modality:
    """The declaration of an input; raises ExpertError when it is of another kind."""
    modality = inputs[name]
    if modality.kind is not kind:
        raise ExpertError(
            f"{who} needs {kind.value}, but {name!r} is {modality.kind.value}.",
            hint="Point `of` at another modality, or leave this expert out.",
        )
    return modality


def common_taxonomy(inputs: Mapping[str, Modality], names: tuple[str, ...], who: str) -> Taxonomy:
    """The taxonomy that all these label maps share; raises ExpertError when they speak different ones."""
    taxonomies = {name: expect(inputs, name, Kind.LABELS, who).taxonomy for name in names}
    first = taxonomies[names[0]]
    assert first is not None
    for name, taxonomy in taxonomies.items():
        if taxonomy != first:
            raise ExpertError(
                f"{who} needs one taxonomy, but {names[0]!r} speaks {first.name!r} and {name!r} "
                f"{taxonomy.name if taxonomy else None!r}.",
                hint="Map one of them first, with the expert `label_map`.",
            )
    return first
