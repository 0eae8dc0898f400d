"""What a job says of its indexes: how many there may be, and which of them are enough (successPolicy, KEP-3998).

The bounds are upstream's (ValidateJobSpec): they keep what a status must list of indexes below an object's size, and what is done for each
job within what a controller can do.
"""

from __future__ import annotations

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import ReadOnly

PARALLELISM_MAX = FAILED_INDEXES_MAX = 100_000
COMPLETIONS_HIGH = 100_000  # beyond these ...
MANY_MAX = 10_000  # ... with a limit for each index, so many may run, and fail
RULES_MAX = 20
TEXT_MAX = 64 * 1024


def check_indexes(spec: ReadOnly, path: str, causes: Causes) -> None:
    if spec.get("completionMode") != "Indexed":
        for field in ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"):
            if spec.get(field) is not None:
                causes.invalid(f"{path}.{field}", spec[field], "requires indexed completion mode")
        return
    _check_counts(spec, path, causes)
    policy = spec.get("successPolicy")
    if policy is None:
        return
    rules = policy.get("rules") or ()
    if not rules:
        causes.required(f"{path}.successPolicy.rules", "at least one rules must be specified when the successPolicy is specified")
    if len(rules) > RULES_MAX:
        causes.too_many(f"{path}.successPolicy.rules", len(rules), RULES_MAX)
    for index, rule in enumerate(rules[:RULES_MAX]):
        _check_rule(rule, spec.get("completions") or 0, f"{path}.successPolicy.rules[{index}]", causes)


def _check_counts(spec: ReadOnly, path: str, causes: Causes) -> None:
    parallelism, completions = spec.get("parallelism") or 0, spec.get("completions") or 0
    limited, most = spec.get("backoffLimitPerIndex") is not None, spec.get("maxFailedIndexes")
    if parallelism > PARALLELISM_MAX:
        causes.invalid(
            f"{path}.parallelism", parallelism, f"must be less than or equal to {PARALLELISM_MAX} when completionMode is set to Indexed"
        )
    if most is not None and most > min(completions, FAILED_INDEXES_MAX):
        causes.invalid(f"{path}.maxFailedIndexes", most, f"must be less than or equal to {min(completions, FAILED_INDEXES_MAX)}")
    if most is not None and not limited:
        causes.required(f"{path}.backoffLimitPerIndex", "must be specified when maxFailedIndexes is specified")
    if limited and completions > COMPLETIONS_HIGH:
        if most is None:
            causes.required(f"{path}.maxFailedIndexes", f"must be specified when completions is above {COMPLETIONS_HIGH}")
        for field, value in (("parallelism", parallelism), ("maxFailedIndexes", most or 0)):
            if value > MANY_MAX:
                told = f"must be less than or equal to {MANY_MAX} when completions are above {COMPLETIONS_HIGH} and used with backoff limit"
                causes.invalid(f"{path}.{field}", value, f"{told} per index")


def _check_rule(rule: ReadOnly, completions: int, path: str, causes: Causes) -> None:
    count, text = rule.get("succeededCount"), rule.get("succeededIndexes")
    if count is None and text is None:
        causes.required(path, "at least one of succeededCount or succeededIndexes must be specified")
    named = completions
    if text is not None:
        if len(text) > TEXT_MAX:
            causes.too_long(f"{path}.succeededIndexes", TEXT_MAX)
            return
        problem, named = _read(text, completions)
        if problem:
            causes.invalid(f"{path}.succeededIndexes", text, f"error parsing succeededIndexes: {problem}")
            return
    causes.non_negative(f"{path}.succeededCount", count)
    if count is not None and count > named:
        what = "the number of indexes in the specified succeededIndexes" if text is not None else "the value of completions"
        causes.invalid(f"{path}.succeededCount", count, f"must be less than or equal to {named} ({what})")


def _read(text: str, completions: int) -> tuple[str, int]:
    """What is wrong with "0-3,7", or "", and how many indexes it names."""
    last, total = -1, 0
    for part in text.split(",") if text else ():
        ends = part.split("-")
        if len(ends) > 2:
            return f"the fragment \"{part}\" violates the requirement that an index interval can have at most two parts separated by '-'", 0
        for end in ends:
            if not (end.isascii() and end.isdigit() and len(end) <= len(str(completions))):
                return f'cannot convert string to an index below {completions}: "{end}"', 0
        first, until = int(ends[0]), int(ends[-1])
        if until >= completions:
            return f'too large index: "{until}"', 0
        if first <= last or (len(ends) == 2 and until <= first):
            return f"non-increasing order, previous: {max(last, first)}, current: {first if first <= last else until}", 0
        last, total = until, total + until - first + 1
    return "", total
