"""The syntax of names, labels, ports and paths. A check returns the problems it finds; none means the value is right.

The words are those of apimachinery's util/validation, which scripts and tests match on.
"""

from __future__ import annotations

import re

SUBDOMAIN_MAX = 253
LABEL_MAX = 63
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_LABEL_VALUE = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_HTTP_HEADER = "[-A-Za-z0-9]+"

_is_label = re.compile(_LABEL).fullmatch
_is_subdomain = re.compile(_SUBDOMAIN).fullmatch
_is_label_1035 = re.compile(_LABEL_1035).fullmatch
_is_label_value = re.compile(_LABEL_VALUE).fullmatch
_is_qualified = re.compile(_QUALIFIED).fullmatch
_is_config_key = re.compile(_CONFIG_KEY).fullmatch
_is_http_header = re.compile(_HTTP_HEADER).fullmatch
_is_environment = re.compile("[ -<>-~]+").fullmatch
_is_port_name = re.compile("[-a-z0-9]+").fullmatch


def _regex(*examples: str, pattern: str) -> str:
    told = " or ".join(f"'{example}'{', ' if index + 1 < len(examples) else ''}" for index, example in enumerate(examples))
    return f"(e.g. {told}, regex used for validation is '{pattern}')"


_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
    "alphanumeric character " + _regex("example.com", pattern=_SUBDOMAIN)
)
_LABEL_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric "
    "character " + _regex("my-name", "123-abc", pattern=_LABEL)
)
_LABEL_1035_WORDS = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an "
    "alphanumeric character " + _regex("my-name", "abc-123", pattern=_LABEL_1035)
)
_LABEL_VALUE_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character " + _regex("MyValue", "my_value", "12345", pattern=_LABEL_VALUE)
)
_QUALIFIED_WORDS = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    + _regex("MyName", "my.name", "123-abc", pattern=_QUALIFIED)
)


def _longer(value: str, limit: int) -> list[str]:
    return [f"must be no more than {limit} bytes"] if len(value) > limit else []


def subdomain(value: str) -> list[str]:
    """RFC 1123 subdomain: the names of most objects."""
    if len(value) <= SUBDOMAIN_MAX and _is_subdomain(value):
        return []
    return _longer(value, SUBDOMAIN_MAX) + ([] if _is_subdomain(value) else [_SUBDOMAIN_WORDS])


def label(value: str) -> list[str]:
    """RFC 1123 label: namespaces, containers, volumes."""
    return _longer(value, LABEL_MAX) + ([] if _is_label(value) else [_LABEL_WORDS])


def label_1035(value: str) -> list[str]:
    """RFC 1035 label, which starts with a letter."""
    return _longer(value, LABEL_MAX) + ([] if _is_label_1035(value) else [_LABEL_1035_WORDS])


def path_segment(value: str) -> list[str]:
    """A name that has only to fit in a URL: roles and their bindings."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{bad}'" for bad in "/%" if bad in value]


def label_value(value: str) -> list[str]:
    if len(value) <= LABEL_MAX and _is_label_value(value):
        return []
    return _longer(value, LABEL_MAX) + ([] if _is_label_value(value) else [_LABEL_VALUE_WORDS])


def qualified_name(value: str) -> list[str]:
    """Keys of labels and annotations: [subdomain/]name."""
    if len(value) <= LABEL_MAX and _is_qualified(value):
        return []
    *before, name = value.split("/")
    if len(before) > 1:
        return [
            "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
            "character "
            + _regex("MyName", "my.name", "123-abc", pattern=_QUALIFIED)
            + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    problems: list[str] = []
    if before and not before[0]:
        problems.append("prefix part must be non-empty")
    elif before:
        problems += [f"prefix part {problem}" for problem in subdomain(before[0])]
    if not name:
        problems.append("name part must be non-empty")
    elif len(name) > LABEL_MAX:
        problems.append(f"name part must be no more than {LABEL_MAX} bytes")
    if not _is_qualified(name):
        problems.append(f"name part {_QUALIFIED_WORDS}")
    return problems


def port_number(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else ["must be between 1 and 65535, inclusive"]


def port_name(value: str) -> list[str]:
    """IANA service name: 15 characters at most, with a letter in it."""
    problems: list[str] = []
    if len(value) > 15:
        problems.append("must be no more than 15 characters")
    if not _is_port_name(value):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        problems.append("must contain at least one letter (a-z)")
    if "--" in value:
        problems.append("must not contain consecutive hyphens")
    if value and (value[0] == "-" or value[-1] == "-"):
        problems.append("must not begin or end with a hyphen")
    return problems


def environment(value: str) -> list[str]:
    if _is_environment(value):
        return []
    return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]


def config_key(value: str) -> list[str]:
    """Keys of config maps and secrets, which become file names."""
    problems = [f"must be no more than {SUBDOMAIN_MAX} characters"] if len(value) > SUBDOMAIN_MAX else []
    if not _is_config_key(value):
        problems.append(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' "
            + _regex("key.name", "KEY_NAME", "key-name", pattern=_CONFIG_KEY)
        )
    if value in (".", ".."):
        problems.append(f"must not be '{value}'")
    elif value.startswith(".."):
        problems.append("must not start with '..'")
    return problems


def http_header(value: str) -> list[str]:
    if _is_http_header(value):
        return []
    return [
        "a valid HTTP header must consist of alphanumeric characters or '-' " + _regex("X-Header-Name", pattern=_HTTP_HEADER),
    ]
