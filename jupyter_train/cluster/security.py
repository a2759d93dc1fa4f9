"""Certificates of one cluster: without them nobody can talk to its scheduler or workers.

An open Dask port runs whatever it is sent, so on a shared host it is a shell
for everyone. Each cluster has an authority of its own; whoever holds the
cluster's one certificate and key, in files that only their owner can read, is
in. The authority's key is never written.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_train.home import private_folder

if TYPE_CHECKING:
    from distributed import Security

CA_FILE, CERT_FILE, KEY_FILE = "ca.pem", "cert.pem", "key.pem"
VALID = datetime.timedelta(days=3650)  # a cluster ends with its host, at the latest


def write_certificates(folder: Path) -> None:
    """Make an authority and a certificate signed by it; ``folder`` then holds three files of mode 0600."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(tz=datetime.UTC)
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))  # 1 ms; RSA takes 100

    def certificate(name: str, public: ec.EllipticCurvePublicKey, *, is_authority: bool) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named("jupyter_train cluster"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + VALID)
            .add_extension(
                x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
            )
            .sign(authority, hashes.SHA256())
        )

    pem = serialization.Encoding.PEM
    private_folder(folder)
    _write(
        folder / CA_FILE,
        certificate("jupyter_train cluster", authority.public_key(), is_authority=True).public_bytes(pem),
    )
    _write(
        folder / CERT_FILE,
        certificate("dask-internal", key.public_key(), is_authority=False).public_bytes(pem),
    )
    _write(
        folder / KEY_FILE,
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def cluster_security(folder: Path) -> Security:
    """What scheduler, workers and clients of the cluster in ``folder`` show each other."""
    from distributed import Security

    cert, key = str(folder / CERT_FILE), str(folder / KEY_FILE)
    return Security(
        require_encryption=True,
        tls_ca_file=str(folder / CA_FILE),
        tls_client_cert=cert,
        tls_client_key=key,
        tls_scheduler_cert=cert,
        tls_scheduler_key=key,
        tls_worker_cert=cert,
        tls_worker_key=key,
    )


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
