"""Keys and signatures of bundles; what they say and how they are verified stands in `edgekit_runtime.signature`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.bundle import contents, pack
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import UsageError
from edgekit_runtime.signature import SIGNATURE, Signature, fingerprint

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_SUFFIX = ".pub"


def new_key(path: Path) -> str:
    """Writes a private key (PEM, for its owner's eyes only) and beside it the public one; returns the fingerprint.

    Raises UsageError where one is there already, or nothing can be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    public = key.public_key()
    private_text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public_text = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    beside = path.with_name(path.name + PUBLIC_SUFFIX)
    try:
        for file, text, mode in ((path, private_text, 0o600), (beside, public_text, 0o644)):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(text)
    except FileExistsError as error:
        raise UsageError(
            f"{error.filename} is there already; a key is never overwritten.", hint="Choose another -o."
        ) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}.") from error
    return fingerprint(public.public_bytes_raw())


def sign(path: Path, key: Path, output: Path | None = None) -> Signature:
    """Signs a bundle with a private key (PEM), in place or into `output`; an older signature is replaced.

    The bundle is verified first. Raises BundleError, BuildError where it cannot be written, UsageError where the key
    is none.
    """
    private = _read_private(key)
    bundle = open_bundle(path)
    signature = Signature(private.public_key().public_bytes_raw(), private.sign(bundle.text))
    files = {**contents(bundle), SIGNATURE: signature.to_json()}
    if bundle.path.is_dir() and output is None:
        raise UsageError(
            f"{bundle.path} is an unpacked bundle.", hint="Give a file for the signed one: -o FILE.edgekit"
        )
    pack(output or bundle.path, files)
    return signature


def _read_private(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise UsageError(f"The key {path} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(
            f"{path} is no private Ed25519 key (PEM, without a password).",
            hint="Make one: edgekit bundle key -o my.key",
        )
    return key
