"""Files for the API server are read before they are kept, kept for the owner alone, and taken away by an empty name."""

from __future__ import annotations

import pytest

from atoll.cluster import policies
from atoll.config import Instance
from atoll.errors import InvalidInput

POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n"
AUTHENTICATION = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: false}\n"


@pytest.fixture
def home(tmp_path):
    instance = Instance(tmp_path / "home")
    instance.cluster.mkdir(parents=True)
    return instance


def test_kept_and_taken_away(home, tmp_path):
    given, other = tmp_path / "policy.yaml", tmp_path / "authentication.yaml"
    given.write_text(POLICY)
    other.write_text(AUTHENTICATION)
    policies.keep(home, str(other), str(given))
    for name, content in ((policies.AUDIT_POLICY, POLICY), (policies.AUTHENTICATION, AUTHENTICATION)):
        path = policies.kept(home, name)
        assert path is not None
        assert path.read_text() == content
        assert path.stat().st_mode & 0o777 == 0o600
    policies.keep(home, None, "")
    assert policies.kept(home, policies.AUDIT_POLICY) is None
    assert policies.kept(home, policies.AUTHENTICATION) is not None


@pytest.mark.parametrize("content", ["rules: []", POLICY.replace("Metadata", "Loud"), ": ["])
def test_what_the_server_would_not_take_is_not_kept(home, tmp_path, content):
    given = tmp_path / "policy.yaml"
    given.write_text(content)
    with pytest.raises(InvalidInput, match=str(given)):
        policies.keep(home, None, str(given))
    with pytest.raises(InvalidInput, match=r"none\.yaml"):
        policies.keep(home, str(tmp_path / "none.yaml"), None)
    assert policies.kept(home, policies.AUDIT_POLICY) is None
