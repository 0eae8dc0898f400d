import base64
import ssl

import pytest
import yaml

from atoll.client.kubeconfig import Access, load
from atoll.errors import InvalidInput, NotFound, NotSupported


def make_pair():
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    certificate = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return pem, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def write(tmp_path, user=None, cluster=None, **more):
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443"} | (cluster or {})}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
        "current-context": "x",
    } | more
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    return path


def test_inline_data_and_files(tmp_path):
    certificate, key = make_pair()
    (tmp_path / "ca.crt").write_bytes(certificate)
    (tmp_path / "token").write_text("abc\n")
    user = {
        "client-certificate-data": base64.b64encode(certificate).decode(),
        "client-key-data": base64.b64encode(key).decode(),
        "tokenFile": "token",
    }
    access = load(write(tmp_path, user, {"certificate-authority": "ca.crt"}))
    assert access == Access("https://127.0.0.1:6443", certificate, certificate, key, "abc", "shop")
    context = access.ssl_context()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.cert_store_stats()["x509"] == 1
    assert Access("http://x").ssl_context() is None
    assert Access("https://x", insecure=True).ssl_context().verify_mode == ssl.CERT_NONE


def test_a_key_of_another_certificate(tmp_path):
    with pytest.raises(InvalidInput, match="do not fit"):
        Access("https://x", None, make_pair()[0], make_pair()[1]).ssl_context()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"current-context": ""}, InvalidInput, "no current-context"),
        ({"current-context": "y"}, InvalidInput, "no entry 'y' in contexts"),
        ({"clusters": [{"name": "c", "cluster": {}}]}, InvalidInput, "server is missing"),
        ({"users": [{"name": "u", "user": {"exec": {}}}]}, NotSupported, "authenticates by exec"),
        ({"users": [{"name": "u", "user": {"client-key-data": "???"}}]}, InvalidInput, "not base64"),
        ({"users": [{"name": "u", "user": {"client-key": "none.key"}}]}, InvalidInput, "No such file"),
    ],
)
def test_refusals(tmp_path, change, error, words):
    with pytest.raises(error, match=words):
        load(write(tmp_path, **change))


def test_no_file_and_no_kubeconfig(tmp_path):
    with pytest.raises(NotFound):
        load(tmp_path / "none")
    (tmp_path / "bad").write_text("- a\n")
    with pytest.raises(InvalidInput):
        load(tmp_path / "bad")
    (tmp_path / "worse").write_text("a: [")
    with pytest.raises(InvalidInput):
        load(tmp_path / "worse")
