from atoll.node.registration import MEMORY_MIN, available_memory, memory_condition


def test_little_memory_is_told():
    assert memory_condition(MEMORY_MIN - 1)[:3] == ("MemoryPressure", "True", "KubeletHasInsufficientMemory")
    assert memory_condition(MEMORY_MIN)[1] == "False"


def test_what_is_available_is_read_from_the_kernel():
    assert available_memory() > 0
