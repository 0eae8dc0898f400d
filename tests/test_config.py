import pytest

from atoll.config import Instance
from atoll.errors import InvalidInput


def test_home_comes_from_the_environment(tmp_path):
    instance = Instance.from_environment({"ATOLL_HOME": str(tmp_path)})
    assert instance.home == tmp_path
    assert instance.engine_socket.parent == instance.run
    assert len(instance.id) == 8


def test_instances_side_by_side_have_their_own_ids(tmp_path):
    assert Instance(tmp_path / "a").id != Instance(tmp_path / "b").id


def test_home_too_long_for_a_socket_is_refused():
    with pytest.raises(InvalidInput, match="too long"):
        Instance.from_environment({"ATOLL_HOME": "/tmp/" + "x" * 120})
