"""Writes the hostile bundles that lie in `files/`, anew. They are kept, so that what was refused once stays refused.

python tests/attacks/make_files.py
"""

from __future__ import annotations

import json
import struct
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtime"))

from bundles import OPENVINO, manifest_for, openvino_files
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgekit_runtime.manifest import MANIFEST
from edgekit_runtime.signature import SIGNATURE, Signature

FOLDER = Path(__file__).parent / "files"
# Keys of nobody: their private halves are these bytes.
MAKER, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
BOMB_BYTES = 64 << 20


def write(name: str, files: Mapping[str, bytes], *more: tuple[zipfile.ZipInfo, bytes]) -> Path:
    path = FOLDER / f"{name}.edgekit"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in files.items():
            archive.writestr(zipfile.ZipInfo(entry), data, zipfile.ZIP_DEFLATED)
        for info, data in more:
            archive.writestr(info, data)
    return path


def signed(files: Mapping[str, bytes], key: Ed25519PrivateKey) -> dict[str, bytes]:
    public = key.public_key().public_bytes_raw()
    return {**files, SIGNATURE: Signature(public, key.sign(files[MANIFEST])).to_json()}


def changed(manifest: str, **values: object) -> bytes:
    return json.dumps({**json.loads(manifest), **values}).encode()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    models = openvino_files(64, 96)
    manifest = manifest_for(models, (OPENVINO,), 64, 96).to_json()
    table = json.loads(manifest)
    true = {MANIFEST: manifest.encode(), **models}
    (FOLDER / "maker.pub").write_bytes(MAKER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    write("unsigned", true)
    write("signed", signed(true, MAKER))
    write("signed_by_a_stranger", signed(true, STRANGER))
    write("altered_after_signing", {**signed(true, MAKER), MANIFEST: changed(manifest, name="another")})
    write("altered", {**true, "model.bin": models["model.bin"][:-1] + b"\xff"})
    whole = write("truncated", true)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    write("future_version", {**true, MANIFEST: changed(manifest, schema=99)})
    write("leaves_its_folder", true, (zipfile.ZipInfo("../../evil"), b"evil"))
    outside = {**table["files"], "/etc/passwd": {"size": 1, "sha256": "0" * 64}}
    write("names_a_file_of_the_system", {**true, MANIFEST: changed(manifest, files=outside)})
    link = zipfile.ZipInfo("model.bin")
    link.external_attr = 0o120777 << 16
    write("holds_a_link", {name: data for name, data in true.items() if name != "model.bin"}, (link, b"/etc/passwd"))
    write("nested_without_end", {**true, MANIFEST: b"[" * 100_000})
    sizes = {**table["files"], "model.bin": {**table["files"]["model.bin"], "size": BOMB_BYTES}}
    write("zip_bomb", {**true, MANIFEST: changed(manifest, files=sizes), "model.bin": bytes(BOMB_BYTES)})
    lying = write("zip_bomb_that_lies", {**true, "model.bin": bytes(BOMB_BYTES)})
    data = bytearray(lying.read_bytes())
    at = data.rindex(b"model.bin") - 46  # its entry in the central directory, which comes last
    struct.pack_into("<I", data, at + 24, len(models["model.bin"]))
    lying.write_bytes(data)


if __name__ == "__main__":
    main()
