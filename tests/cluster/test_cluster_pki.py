import os
import ssl
import stat

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from atoll.cluster import kubeconfig
from atoll.cluster.certificates import Certificates
from atoll.cluster.pki import Leaf, Pki
from atoll.cluster.settings import ClusterSettings, free_port, node_name
from atoll.errors import InvalidInput, NotFound


def certificate(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_leaves_say_what_was_asked_and_are_kept(tmp_path):
    pki = Pki(tmp_path / "pki")
    wanted = Leaf("server", "name", ("group",), hosts=("localhost", "10.0.0.1"), client=False)
    path, key = pki.leaf(wanted)
    found = certificate(path)
    found.verify_directly_issued_by(certificate(pki.ca))
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    serial = found.serial_number
    assert certificate(Pki(tmp_path / "pki").leaf(wanted)[0]).serial_number == serial
    other = pki.leaf(Leaf("server", "name", ("group",), hosts=("localhost",), client=False))[0]
    assert certificate(other).serial_number != serial


def test_a_certificate_cut_off_by_a_crash_is_made_anew(tmp_path):
    pki = Pki(tmp_path)
    path, _ = pki.leaf(Leaf("a", "a"))
    path.write_bytes(path.read_bytes()[:40])
    assert certificate(pki.leaf(Leaf("a", "a"))[0]).subject.rfc4514_string() == "CN=a"


def test_a_key_without_its_certificate_is_made_anew(tmp_path):
    """A crash after the new key was written and before its certificate was."""
    pki = Pki(tmp_path)
    path, key = pki.leaf(Leaf("a", "a"))
    _, other = pki.leaf(Leaf("b", "b"))
    key.write_bytes(other.read_bytes())
    path, key = pki.leaf(Leaf("a", "a"))
    ssl.create_default_context().load_cert_chain(path, key)


def test_settings_and_certificates(instance):
    with pytest.raises(NotFound, match="atoll cluster start"):
        ClusterSettings.load(instance)
    settings = ClusterSettings("node", "192.0.2.7", 6443)
    instance.cluster.mkdir(parents=True)
    settings.save(instance)
    assert ClusterSettings.load(instance) == settings
    assert settings.dns_ip == "10.96.0.10"
    names = certificate(Certificates(instance, settings).api_server()[0]).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert "kubernetes.default.svc.cluster.local" in names.value.get_values_for_type(x509.DNSName)
    (instance.cluster / "cluster.json").write_text("{")
    with pytest.raises(InvalidInput, match="delete the cluster"):
        ClusterSettings.load(instance)


def test_names_and_ports():
    assert node_name() == node_name().lower()
    assert free_port(0) > 0


OTHERS = {
    "clusters": [{"name": "work", "cluster": {"server": "https://x"}}],
    "users": [{"name": "me", "user": {}}],
    "contexts": [{"name": "work", "context": {"cluster": "work", "user": "me"}}],
    "current-context": "work",
}


def test_a_users_kubeconfig_keeps_its_other_clusters(tmp_path):
    real = tmp_path / "real"
    kubeconfig.write(real, OTHERS)
    link = tmp_path / "config"
    link.symlink_to(real)
    added = kubeconfig.entry("https://127.0.0.1:6443", b"ca", b"cert", b"key")
    kubeconfig.merge(link, added)
    kubeconfig.merge(link, added)
    assert link.is_symlink()
    merged = kubeconfig._read(link)
    assert [item["name"] for item in merged["contexts"]] == ["work", "atoll"]
    assert merged["current-context"] == "atoll"
    kubeconfig.remove(link)
    assert kubeconfig._read(link)["contexts"] == OTHERS["contexts"]
    assert kubeconfig._read(link)["current-context"] == ""
    kubeconfig.remove(tmp_path / "absent")


def test_what_is_no_kubeconfig_is_left_alone(tmp_path):
    path = tmp_path / "config"
    path.write_text("- a list")
    with pytest.raises(InvalidInput, match="not a kubeconfig"):
        kubeconfig.merge(path, kubeconfig.entry("https://x", b"", b"", b""))
    assert path.read_text() == "- a list"
