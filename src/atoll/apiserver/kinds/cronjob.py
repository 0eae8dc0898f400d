"""Cron jobs: a schedule, a template of jobs, and how much history to keep."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.job import check_job_spec
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules
from atoll.apiserver.kinds.workloads import default_template

NAME_MAX = 52  # a job's name is a cron job's with up to 11 characters more, and must fit a label
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_NAMES = {
    3: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    4: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
_MACROS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_FIELD = re.compile(r"(\*|\?|[0-9a-z]+(?:-[0-9a-z]+)?)(?:/([0-9]+))?")


class CronJobRules(Rules):
    counts_generations = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("concurrencyPolicy", "Allow")
        spec.setdefault("suspend", False)
        spec.setdefault("successfulJobsHistoryLimit", 3)
        spec.setdefault("failedJobsHistoryLimit", 1)
        template = spec.setdefault("jobTemplate", {})
        template.setdefault("metadata", {})
        default_template(template.setdefault("spec", {}))

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        schedule = spec.get("schedule") or ""
        if not schedule:
            causes.required("spec.schedule")
        elif "TZ" in schedule:
            causes.invalid("spec.schedule", schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")
        else:
            causes.each("spec.schedule", schedule, schedule_problems(schedule))
        zone = spec.get("timeZone")
        if zone is not None and not _is_zone(zone):
            causes.invalid("spec.timeZone", zone, f"unknown time zone {zone}")
        causes.one_of("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), ("Allow", "Forbid", "Replace"))
        for field in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
            causes.non_negative(f"spec.{field}", spec.get(field))
        check_job_spec((spec.get("jobTemplate") or {}).get("spec") or {}, "spec.jobTemplate.spec", causes)

    def check_new(self, obj: ReadOnly, causes: Causes) -> None:
        name = (obj.get("metadata") or {}).get("name") or ""
        if len(name) > NAME_MAX:
            causes.invalid("metadata.name", name, f"must be no more than {NAME_MAX} characters")


def schedule_problems(schedule: str) -> list[str]:
    """The standard five fields, or a macro such as @hourly or "@every 1h30m"."""
    if schedule.startswith("@"):
        return [] if schedule in _MACROS or schedule.startswith("@every ") else [f"unrecognized descriptor: {schedule}"]
    fields = schedule.lower().split()
    if len(fields) != len(_RANGES):
        return [f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"]
    for index, field in enumerate(fields):
        for part in field.split(","):
            problem = _part_problem(part, index)
            if problem:
                return [problem]
    return []


def _part_problem(part: str, index: int) -> str:
    match = _FIELD.fullmatch(part)
    if not match:
        return f"failed to parse int from {part}"
    if match[2] is not None and int(match[2]) == 0:
        return f"step of range should be a positive number: {part}"
    if match[1] in "*?":
        return ""
    low, high = _RANGES[index]
    ends = [_number(end, index) for end in match[1].split("-")]
    for end in ends:
        if end is None:
            return f"failed to parse int from {part}"
        if end < low:
            return f"beginning of range ({end}) below minimum ({low}): {part}"
        if end > high and not (index == 4 and end == 7):
            return f"end of range ({end}) above maximum ({high}): {part}"
    first, last = ends[0] or 0, ends[-1] or 0
    return f"beginning of range ({first}) beyond end of range ({last}): {part}" if first > last else ""


def _number(text: str, index: int) -> int | None:
    if text.isdecimal():
        return int(text)
    named = _NAMES.get(index, [])
    return named.index(text) + _RANGES[index][0] if text in named else None


def _is_zone(name: str) -> bool:
    if name.lower() == "local" or not name:
        return False
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


RULES = CronJobRules()
