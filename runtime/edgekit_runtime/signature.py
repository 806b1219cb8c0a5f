"""Who built a bundle: an Ed25519 signature (RFC 8032) of the manifest, which holds the hash of every other file.

It lies beside the manifest as `manifest.sig`, JSON: `algorithm`, and in base64 the public `key` (32 bytes) and the
`signature` (64 bytes). It says something only to those who hold the public key from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.errors import BundleError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE = "manifest.sig"
MAX_SIGNATURE_BYTES = 4096
ALGORITHM = "ed25519"


@dataclass(frozen=True)
class Signature:
    """What `manifest.sig` says; true only once it was verified against a key that one trusts."""

    key: bytes
    value: bytes

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.key)

    def to_json(self) -> bytes:
        table = {"algorithm": ALGORITHM, "key": _text(self.key), "signature": _text(self.value)}
        return (json.dumps(table, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Signature:
        """Raises BundleError for anything else than what `to_json` writes."""
        try:
            table = json.loads(data)
            if table["algorithm"] != ALGORITHM:
                raise ValueError(f"algorithm {table['algorithm']!r} is unknown")
            key, value = (base64.b64decode(table[name], validate=True) for name in ("key", "signature"))
            if (len(key), len(value)) != (32, 64):
                raise ValueError("key or signature have another length")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise BundleError(f"{where} is not a signature: {error}.", hint="Sign the bundle again.") from error
        return cls(key, value)


def fingerprint(public: bytes) -> str:
    """How people compare keys: the first 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def check_signature(manifest: bytes, signature: Signature | None, key: Path, where: str) -> None:
    """Raises BundleError unless the private key that belongs to the public `key` (PEM) has signed these bytes.

    Raises UsageError where the key cannot be read or the package cryptography is missing.
    """
    public = _read_key(key)
    raw = public.public_bytes_raw()
    if signature is None:
        raise BundleError(
            f"{where} is not signed; {key} ({fingerprint(raw)}) should have signed it.",
            hint="edgekit bundle sign BUNDLE --key FILE, where it was built.",
        )
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature.value, manifest)
    except InvalidSignature:
        if signature.key == raw:
            reason = "its manifest was altered after it was signed"
        else:
            reason = f"it was signed by another key, {signature.fingerprint}"
        raise BundleError(
            f"{where} is not what {key} ({fingerprint(raw)}) has signed: {reason}.",
            hint="Get the bundle again from whom you trust.",
        ) from None


def _read_key(path: Path) -> Ed25519PublicKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise UsageError(
            "Signatures need the package cryptography.", hint="pip install 'edgekit-runtime[signing]'"
        ) from error
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise UsageError(f"The key {path} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(
            f"{path} is no public Ed25519 key (PEM).", hint="edgekit bundle key -o my.key writes my.key and my.key.pub."
        )
    return key


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
