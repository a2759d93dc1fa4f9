"""Certificates of one cluster."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from jupyter_train.cluster import security


def test_only_their_owner_can_read_them(tmp_path: Path) -> None:
    security.write_certificates(tmp_path / "c")
    assert {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "c").iterdir()} == {
        "ca.pem": 0o600,
        "cert.pem": 0o600,
        "key.pem": 0o600,
    }


def test_they_are_never_written_over(tmp_path: Path) -> None:
    security.write_certificates(tmp_path)
    with pytest.raises(FileExistsError):
        security.write_certificates(tmp_path)


def test_all_roles_must_show_the_clusters_certificate(tmp_path: Path) -> None:
    security.write_certificates(tmp_path)
    shown = security.cluster_security(tmp_path)
    assert shown.require_encryption
    for role in ("client", "scheduler", "worker"):
        assert shown.get_connection_args(role)["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert shown.get_listen_args("scheduler")["ssl_context"].verify_mode is ssl.CERT_REQUIRED


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """The whole handshake in memory; raises what either side says."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_side=False)
    there = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    here.write(b"x")
    assert there.read(1) == b"x"


def test_one_clusters_certificate_opens_that_cluster_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        security.write_certificates(tmp_path / name)
    a, b = (security.cluster_security(tmp_path / name) for name in ("a", "b"))
    server = a.get_listen_args("scheduler")["ssl_context"]
    handshake(a.get_connection_args("client")["ssl_context"], server)
    with pytest.raises(ssl.SSLError):
        handshake(b.get_connection_args("client")["ssl_context"], server)
