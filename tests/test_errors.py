import errno

from atoll.errors import StatusError, SystemFailure


def test_system_failure_names_step_and_reason():
    assert str(SystemFailure("mount overlay on /x", errno.EPERM)) == "mount overlay on /x: Operation not permitted"


def test_status_error_round_trips():
    error = StatusError(404, "NotFound", 'pods "a" not found', {"name": "a", "kind": "pods"})
    back = StatusError.from_status(error.status())
    assert (back.code, back.reason, back.message, back.details) == (
        404,
        "NotFound",
        'pods "a" not found',
        {"name": "a", "kind": "pods"},
    )
