"""`edgekit profiles`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.console import console, emit, show_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekit.profiles import Profile


def register(app: typer.Typer) -> None:
    app.command("profiles")(profiles)


def profiles(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one profile.")] = None,
    detected: Annotated[bool, typer.Option("--detect", help="Propose one for this machine.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List the device profiles, with a mark at those that this machine can run."""
    from edgekit.profiles import detect, load_profile, profile_names

    if detected:
        proposed, able = detect()
        if json:
            emit({"profile": proposed.name, "runs_here": [profile.name for profile in able]})
        else:
            others = ", ".join(profile.name for profile in able if profile != proposed)
            console.print(f"{proposed.name}: {proposed.description}.", markup=False)
            console.print(f"It can run these, too: {others or 'none'}.", markup=False)
            console.print(f"Next: edgekit build --profile {proposed.name}", markup=False)
        return
    found = [load_profile(name)] if name else [load_profile(each) for each in profile_names()]
    if json:
        emit({"profiles": [_document(profile) for profile in found]})
    elif name:
        _show(found[0])
    else:
        _list(found)


def _document(profile: Profile) -> dict[str, Any]:
    reason = profile.missing()
    return {**profile.model_dump(mode="json"), "runs_here": not reason, "reason": reason}


def _show(profile: Profile) -> None:
    size = profile.network_size
    table = {
        **_document(profile),
        "input_size": _by(profile.input_size),
        "network_size": size if isinstance(size, str) else _by(size),
        "smaller_inputs": [_by(size) for size in profile.smaller_inputs],
    }
    show_rows(console, [(key, _plain(value)) for key, value in table.items()])


def _list(found: Sequence[Profile]) -> None:
    """Two lines each: what it is called and aims at, what it is for."""
    heads = ("profile", "runs here", "target", "input")
    facts = [
        (profile.name, "no" if profile.missing() else "yes", str(profile.target), _by(profile.input_size))
        for profile in found
    ]
    show_rows(console, [heads, *facts])
    console.print()
    reasons = [(profile.name, profile.description, profile.missing()) for profile in found]
    show_rows(console, [(name, f"{what}{f' ({reason})' if reason else ''}.") for name, what, reason in reasons])
    console.print()
    console.print("input: of the frames; where network_size is `student`, the size of the student's training instead.")
    console.print("edgekit profiles NAME: precisions and all other settings.")


def _by(size: tuple[int, int]) -> str:
    """(height, width) as people write it."""
    return f"{size[1]}x{size[0]}"


def _plain(value: object) -> str:
    """Lists and tables without brackets, what is empty as a dash."""
    if isinstance(value, dict):
        value = [f"{key} {_plain(item)}" for key, item in value.items() if item not in ("", [])]
    if isinstance(value, list):
        value = ", ".join(str(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "–"
