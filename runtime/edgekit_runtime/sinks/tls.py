"""https for the page: a certificate of one's own, or one that is made here and kept in the user's cache directory.

Browsers give their camera only to https pages and to localhost; of what nobody vouches for they warn once.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from edgekit_runtime.errors import SinkError
from edgekit_runtime.files import cache_directory, whole

_DAYS = 397  # the most that browsers take
_RENEW_DAYS = 30


@dataclass(frozen=True)
class Certificate:
    """Two PEM files: the certificate, with those that lead to its root if there are any, and its private key."""

    chain: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """What a server needs. Raises SinkError where the files are missing or do not belong together."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.chain, self.key, password="")
        except ssl.SSLError as error:
            reason = (error.reason or str(error)).lower().replace("_", " ")
            raise SinkError(
                f"{self.chain} and {self.key} are no certificate and its key: {reason}.",
                hint="Both are PEM files, and the key has no password.",
            ) from error
        except OSError as error:
            raise SinkError(f"{self.chain} and {self.key} cannot be read: {error.strerror or error}.") from error
        return context

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as browsers show it."""
        der = ssl.PEM_cert_to_DER_cert(_first_certificate(self.chain.read_text(encoding="ascii")))
        return hashlib.sha256(der).digest().hex(":").upper()


def own_certificate(host: str) -> Certificate:
    """A self-signed certificate for this machine, made once and again when it runs out or addresses have changed.

    Raises SinkError where the package cryptography is missing or the cache directory cannot be written.
    """
    names = _names(host)
    folder = cache_directory("web")
    if folder is None:
        raise SinkError("There is no cache directory to keep a certificate in.", hint=_by_hand(names))
    found = Certificate(folder / "certificate.pem", folder / "key.pem")
    try:
        if not _still_good(found.chain, names):
            _make(found, names)
    except ImportError as error:
        hint = f"pip install 'edgekit-runtime[signing]', or:\n{_by_hand(names)}"
        raise SinkError("To make a certificate, the package cryptography is needed.", hint=hint) from error
    except OSError as error:
        raise SinkError(f"{folder} cannot be written: {error.strerror or error}.", hint=_by_hand(names)) from error
    return found


def reachable_address() -> str:
    """The address by which other machines of the network reach this one; the host's name where none is found."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses a way out
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def _names(host: str) -> list[str]:
    """All by which this machine may be called, the one that was asked for among them."""
    name = socket.gethostname()
    found = {"localhost", "127.0.0.1", "::1", name, f"{name.split('.')[0]}.local", reachable_address()}
    return sorted(found | ({host} - {"0.0.0.0", "::"}))  # noqa: S104  (not names)


def _by_hand(names: list[str]) -> str:
    entries = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)
    return (
        f"openssl req -x509 -newkey rsa:2048 -nodes -days {_DAYS} -subj /CN=edgekit -addext subjectAltName={entries} "
        "-keyout key.pem -out certificate.pem\n--sink 'web:HOST:PORT?cert=certificate.pem&key=key.pem'"
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _still_good(path: Path, names: list[str]) -> bool:
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return False
    known = {*said.get_values_for_type(x509.DNSName), *map(str, said.get_values_for_type(x509.IPAddress))}
    return known >= set(names) and certificate.not_valid_after_utc > _now() + timedelta(days=_RENEW_DAYS)


def _make(certificate: Certificate, names: list[str]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgekit")])
    entries = [x509.IPAddress(ipaddress.ip_address(n)) if _is_address(n) else x509.DNSName(n) for n in names]
    now = _now()
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_DAYS - 1))
        .add_extension(x509.SubjectAlternativeName(entries), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with whole(certificate.key) as partial:
        partial.touch(0o600)
        partial.write_bytes(private)
    with whole(certificate.chain) as partial:
        partial.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def _first_certificate(text: str) -> str:
    end = "-----END CERTIFICATE-----"
    return text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]


def _now() -> datetime:
    return datetime.now(timezone.utc)
