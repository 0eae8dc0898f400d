from atoll.runtime.trust import BUNDLE_IN_CONTAINER, Trust, host_trust


def write(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_plain_host_gives_nothing(tmp_path):
    write(tmp_path / "etc/ssl/certs/ca-certificates.crt")
    assert not host_trust({}, tmp_path)


def test_an_extra_authority_brings_the_system_bundle(tmp_path):
    bundle = write(tmp_path / "etc/ssl/certs/ca-certificates.crt")
    write(tmp_path / "usr/local/share/ca-certificates/company/proxy.crt")
    trust = host_trust({}, tmp_path)
    assert trust.bundle == bundle
    assert dict(trust.environment)["PIP_CERT"] == BUNDLE_IN_CONTAINER


def test_a_bundle_named_by_the_environment_wins(tmp_path):
    named = write(tmp_path / "company.pem")
    assert host_trust({"SSL_CERT_FILE": str(named)}, tmp_path).bundle == named
    assert host_trust({"SSL_CERT_FILE": str(tmp_path / "gone")}, tmp_path).bundle is None


def test_only_an_index_that_a_container_can_reach_is_passed_on(tmp_path):
    for url in ("file:///srv/pypi", "http://localhost:3141/simple", "http://127.0.0.1/simple", ""):
        assert not host_trust({"PIP_INDEX_URL": url}, tmp_path)
    assert host_trust({"PIP_INDEX_URL": "https://pypi.example/simple"}, tmp_path).environment == (
        ("PIP_INDEX_URL", "https://pypi.example/simple"),
    )


def test_pip_files_override_one_another_and_a_broken_one_is_passed_over(tmp_path):
    write(tmp_path / "etc/pip.conf", "[global]\nindex-url = http://old.example/simple\ntrusted-host = old.example new.example\n")
    write(tmp_path / "home/u/.config/pip/pip.conf", "[global]\nindex-url = http://new.example/%%simple\n")
    write(tmp_path / "home/u/.pip/pip.conf", "not an ini file")
    assert dict(host_trust({"HOME": "/home/u"}, tmp_path).environment) == {
        "PIP_INDEX_URL": "http://new.example/%%simple",
        "PIP_TRUSTED_HOST": "old.example new.example",
    }


def test_apply_adds_a_mount_below_dev_and_keeps_what_is_set(tmp_path):
    bundle = write(tmp_path / "b.pem")
    spec = {"process": {"env": ["PIP_CERT=/mine"]}, "mounts": [{"destination": "/dev", "type": "tmpfs"}]}
    host_trust({"SSL_CERT_FILE": str(bundle)}, tmp_path).apply(spec)
    assert spec["mounts"][-1]["destination"].startswith("/dev/")
    assert spec["process"]["env"][0] == "PIP_CERT=/mine"
    assert f"SSL_CERT_FILE={BUNDLE_IN_CONTAINER}" in spec["process"]["env"]
    assert sum(item.startswith("PIP_CERT=") for item in spec["process"]["env"]) == 1


def test_a_bound_dev_is_left_alone(tmp_path):
    spec = {"process": {"env": []}, "mounts": [{"destination": "/dev", "type": "bind", "source": "/dev"}]}
    Trust(write(tmp_path / "b.pem"), (("PIP_CERT", BUNDLE_IN_CONTAINER),)).apply(spec)
    assert len(spec["mounts"]) == 1
    assert spec["process"]["env"] == []
