"""Cron expressions: minute, hour, day of month, month, day of week; names, ranges, steps, lists, and the macros @hourly to @yearly. Pure.

As in cron(8), when both days are restricted either will do. A time that a zone's clock skips or repeats happens once: the search walks
in local wall time and converts.
"""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from atoll.errors import InvalidInput

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = {"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12}
_DAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
SEARCH_DAYS = 366 * 5  # beyond that the expression names a day that does not exist, such as 30 February


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which minutes match."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool  # both days are restricted
    zone: tzinfo = UTC

    def following(self, after: float) -> float | None:
        """The first matching minute later than `after`, in epoch seconds."""
        moment = datetime.fromtimestamp(after, self.zone).replace(second=0, microsecond=0, tzinfo=None) + timedelta(minutes=1)
        day = moment.replace(hour=0, minute=0)
        for _ in range(SEARCH_DAYS):
            if day.month in self.months and self._matches_day(day):
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        wall = day.replace(hour=hour, minute=minute)
                        if wall >= moment:
                            found = wall.replace(tzinfo=self.zone).timestamp()
                            if found > after:
                                return found
            day += timedelta(days=1)
        return None

    def latest(self, after: float, until: float) -> tuple[float | None, int]:
        """The last matching minute in (after, until], and how many there are; counting stops at 101, for "too many"."""
        last, count = None, 0
        moment = self.following(after)
        while moment is not None and moment <= until:
            last, count = moment, count + 1
            if count > 100:
                return self._latest_of_many(until), count
            moment = self.following(moment)
        return last, count

    def _latest_of_many(self, until: float) -> float | None:
        """From the end backwards, in windows that double."""
        window = 3600.0
        while window < SEARCH_DAYS * 86400:
            moment, last = self.following(until - window), None
            while moment is not None and moment <= until:
                last, moment = moment, self.following(moment)
            if last is not None:
                return last
            window *= 2
        return None

    def _matches_day(self, day: datetime) -> bool:
        by_date, by_weekday = day.day in self.days, (day.weekday() + 1) % 7 in self.weekdays
        return by_date or by_weekday if self.either_day else by_date and by_weekday


def parse(expression: str, time_zone: str | None = None) -> Schedule:
    """Raises InvalidInput naming what is wrong."""
    text = _MACROS.get(expression.strip().lower(), expression)
    fields = text.split()
    if len(fields) != 5:
        raise InvalidInput(f"schedule {expression!r}: expected exactly 5 fields, found {len(fields)}")
    minutes, hours, days, months, weekdays = fields
    zone: tzinfo = UTC
    if time_zone:
        try:
            zone = zoneinfo.ZoneInfo(time_zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise InvalidInput(f"unknown time zone {time_zone}") from error
    return Schedule(
        _field(minutes, 0, 59, {}, expression),
        _field(hours, 0, 23, {}, expression),
        _field(days, 1, 31, {}, expression),
        _field(months, 1, 12, _MONTHS, expression),
        frozenset(day % 7 for day in _field(weekdays, 0, 7, _DAYS, expression)),
        not days.startswith(("*", "?")) and not weekdays.startswith(("*", "?")),
        zone,
    )


def _field(text: str, low: int, high: int, names: dict[str, int], expression: str) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, {}, expression) if slash else 1
        if span in ("*", "?"):
            first, last = low, high if high != 7 else 6
        else:
            first_text, dash, last_text = span.partition("-")
            first = _number(first_text, names, expression)
            last = _number(last_text, names, expression) if dash else (high if slash else first)
        if step < 1 or first < low or last > high or first > last:
            raise InvalidInput(f"schedule {expression!r}: {part!r} is not within {low}-{high}")
        values.update(range(first, last + 1, step))
    return frozenset(values)


def _number(text: str, names: dict[str, int], expression: str) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not text.isdecimal():
        raise InvalidInput(f"schedule {expression!r}: {text!r} is not a number")
    return int(text)
