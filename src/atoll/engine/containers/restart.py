"""Restart policies: whether a container that has ended starts again, and after how long.

Docker's rules: the delay begins at 100 ms and doubles up to a minute; a run of ten seconds or more begins it anew. What the user stopped
stays stopped, and after the daemon's own restart only "always" brings it back.
"""

from __future__ import annotations

from atoll.engine.containers.record import Record

DELAY_FIRST_S = 0.1
DELAY_MAX_S = 60.0
STEADY_NS = 10_000_000_000  # a run this long was a good one


def wants_restart(record: Record) -> bool:
    """Whether the policy starts the container again after the exit that `record` tells of."""
    policy = record.host["RestartPolicy"]
    name, retries = policy["Name"], policy["MaximumRetryCount"]
    if record.stopped_by_user:
        return False
    if name in {"always", "unless-stopped"}:
        return True
    return name == "on-failure" and record.exit_code != 0 and (not retries or record.restart_count < retries)


def wants_start_with_daemon(record: Record) -> bool:
    """Whether a container found stopped when the daemon starts is started: its host was rebooted, or the keeper was killed."""
    name = record.host["RestartPolicy"]["Name"]
    if not record.started_ns:
        return False
    return name == "always" or (name == "unless-stopped" and not record.stopped_by_user) or (name == "on-failure" and wants_restart(record))


def next_delay(record: Record, last_s: float) -> float:
    """Seconds to wait before the next start, given the wait before the last one (0 for none)."""
    if not last_s or record.finished_ns - record.started_ns >= STEADY_NS:
        return DELAY_FIRST_S
    return min(last_s * 2, DELAY_MAX_S)
