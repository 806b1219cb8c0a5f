"""`edgekit bundle`: look at bundles, verify, sign, compare and unpack them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.console import console, emit, show_rows, stdout
from edgekit_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgekit_runtime.bundle import Bundle
    from edgekit_runtime.manifest import Manifest, Variant

BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="An .edgekit file, its folder, or one unpacked.")
]
PublicKey = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="It must be signed by this public key (PEM).")
]
# So many of them are named: Cityscapes has 19, ADE20K 150.
_CLASSES = 20
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def register(app: typer.Typer) -> None:
    bundles = typer.Typer(no_args_is_help=True, help="Look at bundles; verify, sign, compare, unpack them.")
    for command in (show, verify, sign, diff, unpack, schema):
        bundles.command()(command)
    bundles.command("key")(new_key)
    app.add_typer(bundles, name="bundle")


def show(bundle: BundleArgument, json: Json = False) -> None:
    """Show what a bundle is: its network, how fast and good it was where it was built, and where it comes from."""
    from edgekit_runtime.bundle import open_bundle

    opened = open_bundle(bundle)
    if json:
        emit({**_manifest_table(opened), "path": str(opened.path), "signed_by": _signer(opened)})
        return
    show_rows(stdout(), list(_facts(opened)))


def verify(bundle: BundleArgument, key: PublicKey = None, json: Json = False) -> None:
    """Verify every file of a bundle against its manifest and, with a key, the manifest's signature."""
    from edgekit_runtime.bundle import open_bundle

    opened = open_bundle(bundle, key=key)
    if json:
        emit({"path": str(opened.path), "files": len(opened.manifest.files), "signed_by": _signer(opened)})
        return
    if key is not None:
        signed = f"signed by {key} ({_signer(opened)})"
    elif opened.signature:
        signed = f"signed by {_signer(opened)}, which was not checked (--key)"
    else:
        signed = "not signed"
    console.print(f"{opened.path}: whole, {len(opened.manifest.files)} files; {signed}.", markup=False)


def sign(
    bundle: BundleArgument,
    key: Annotated[Path, typer.Option(metavar="FILE", help="Your private key, PEM: edgekit bundle key makes one.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Else in place.")] = None,
    json: Json = False,
) -> None:
    """Sign a bundle: devices that run it with --key take no other."""
    from edgekit.signing import sign as write

    signature = write(bundle, key, output)
    if json:
        emit({"path": str(output or bundle), "signed_by": signature.fingerprint})
    else:
        console.print(f"{output or bundle}: signed by {signature.fingerprint}.", markup=False)


def new_key(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The private key; FILE.pub beside it.")
    ],
    json: Json = False,
) -> None:
    """Make a key to sign with. Keep FILE to yourself; FILE.pub goes to the devices."""
    from edgekit.signing import PUBLIC_SUFFIX
    from edgekit.signing import new_key as write

    found = write(output)
    public = f"{output}{PUBLIC_SUFFIX}"
    if json:
        emit({"private": str(output), "public": public, "fingerprint": found})
    else:
        console.print(
            f"{output} (keep it to yourself), {public} (for the devices): {found}.\n"
            f"Next: edgekit bundle sign BUNDLE --key {output}\n"
            f"      edgekit-run BUNDLE --key {public} --camera 0",
            markup=False,
        )


def diff(
    first: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The one.")],
    second: Annotated[Path, typer.Argument(metavar="OTHER", help="The other.")],
    json: Json = False,
) -> None:
    """Show in what two bundles differ: files, sizes, settings, figures, provenance. Exit status 1 if in anything."""
    from edgekit_runtime.bundle import open_bundle

    one, other = (dict(_flat("", _manifest_table(open_bundle(path)))) for path in (first, second))
    names = sorted(one.keys() | other.keys())
    found = {name: [one.get(name), other.get(name)] for name in names if one.get(name) != other.get(name)}
    if json:
        emit({"differences": found})
    else:
        for name, (mine, theirs) in found.items():
            stdout().print(f"{name}\n    {_plain(mine)}\n    {_plain(theirs)}", markup=False)
        if not found:
            console.print("No difference.")
    if found:
        raise typer.Exit(1)


def unpack(
    bundle: BundleArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="A new folder.")],
) -> None:
    """Write the files of a bundle into a folder; it runs from there as well."""
    from edgekit.bundle import contents
    from edgekit.bundle import unpack as write
    from edgekit_runtime.bundle import open_bundle

    files = contents(open_bundle(bundle))
    try:
        write(output, files)
    except FileExistsError as error:
        raise UsageError(f"{output} is there already.", hint="Give a new folder with -o.") from error
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {(error.strerror or str(error)).lower()}.") from error
    console.print(f"{len(files)} files in {output}", markup=False)


def schema() -> None:
    """Print the JSON Schema of a bundle's manifest.json."""
    from edgekit.manifest_schema import manifest_schema

    emit(manifest_schema())


def _manifest_table(bundle: Bundle) -> dict[str, Any]:
    import json

    table: dict[str, Any] = json.loads(bundle.text)
    return table


def _signer(bundle: Bundle) -> str | None:
    return bundle.signature.fingerprint if bundle.signature else None


def _facts(bundle: Bundle) -> Iterator[tuple[str, str]]:
    manifest, provenance = bundle.manifest, bundle.manifest.provenance
    height, width = manifest.input_size
    yield "bundle", f"{manifest.name}, for {manifest.profile}, built {manifest.created}"
    size = sum(entry.size for entry in manifest.files.values())
    yield "files", f"{len(manifest.files)}, {size / 1e6:.2f} MB unpacked; {bundle.path}"
    yield "signed by", f"{_signer(bundle)} (edgekit bundle verify --key checks it)" if bundle.signature else "nobody"
    yield "takes", f"frames of {width}x{height}, BGR"
    for output in manifest.outputs:
        modality = output.modality
        what = modality.unit if modality else ""
        if modality and modality.taxonomy:
            what = f"{modality.taxonomy.name}: {_listed(modality.taxonomy.classes)}"
        yield "gives", f"{output.name} {output.shape[-1]}x{output.shape[-2]}, {what}"
    for variant in manifest.variants:
        yield "runs on", _found(variant, manifest)
    for smaller in manifest.smaller:
        for variant in smaller.variants:
            yield "smaller", f"{smaller.input[2]}x{smaller.input[1]}, {_found(variant, manifest)}"
    host = provenance.get("host", {})
    if host:
        yield "built on", f"{host.get('cpu')}, {', '.join(f'{k} {v}' for k, v in provenance.get('tools', {}).items())}"
    data = provenance.get("data", {})
    if data:
        yield (
            "judged on",
            f"{data.get('judged_frames')} frames of {data.get('kind')} {data.get('data_hash', '')}".strip(),
        )
    for doubt in provenance.get("doubts", []):
        yield "doubt", doubt


def _listed(names: Sequence[str]) -> str:
    """The first of them where there are many; `--json` has all."""
    rest = len(names) - _CLASSES
    return ", ".join(names[:_CLASSES]) + (f" and {rest} more" if rest > 0 else "")


def _found(variant: Variant, manifest: Manifest) -> str:
    """What was measured of it where the bundle was built, and by what."""
    key = variant.engine, variant.device, variant.precision
    rows = {(row["engine"], row["device"], row["precision"]): row for row in manifest.candidates}
    row = rows.get(key, {})
    figures = [f"{variant.p50_ms:.2f} ms" if variant.p50_ms is not None else "not timed"]
    if row.get("not_measured"):
        figures = [f"not timed, only verified with {row['ran_on']} ({row['not_measured']})"]
    if variant.miou is not None and row.get("accuracy_metric", "miou") != "miou":
        figures.append(f"mIoU {100 * variant.miou:.1f} % with fp32's class maps (there were no labels)")
    elif variant.miou is not None:
        drop = variant.drop or 0
        side = "above" if drop < 0 else "below"
        figures.append(f"mIoU {100 * variant.miou:.1f} % against labels, {abs(100 * drop):.2f} {side} fp32")
    if variant.depth_error is not None:
        figures.append(f"depth {100 * variant.depth_error:.2f} % off fp32")
    return f"{variant.engine} {variant.device}, {variant.precision}: {'; '.join(figures)}"


def _flat(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    """Leaves of a JSON document by their paths."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for number, inner in enumerate(value):
            yield from _flat(f"{prefix}.{number}", inner)
    else:
        yield prefix, value


def _plain(value: object) -> str:
    if value is None:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
