"""The last step: working directory, search in PATH, execve; with the errors in runc's words, which Docker's clients match on."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import Any, NoReturn

from atoll.errors import InvalidInput
from atoll.runtime.errors import CommandNotExecutable, CommandNotFound, StartFailed

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(process: Mapping[str, Any], home: str) -> dict[str, str]:
    """The process's variables, with HOME from passwd where none was given. Raises InvalidInput."""
    variables = {}
    for item in process.get("env") or ():
        name, separator, value = item.partition("=")
        if not name or not separator or "\0" in item:
            raise InvalidInput(f"invalid environment variable: {item!r}")
        variables[name] = value
    if not variables.get("HOME"):
        variables["HOME"] = home
    return variables


def change_directory(path: str) -> None:
    """Raises CommandNotFound when it is not there. A directory outside the root is refused (CVE-2024-21626)."""
    what = f'chdir to cwd ("{path}") set in config.json failed'
    try:
        os.chdir(path)
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        raise CommandNotFound(f"{what}: no such file or directory") from None
    except OSError as error:
        raise CommandNotExecutable(f"{what}: {_words(error)}") from error
    if not inside:
        raise StartFailed(f"{what}: current working directory is outside of container mount namespace root")


def find(name: str, search: str | None) -> str:
    """The file to execute, as Go's exec.LookPath finds it. Raises CommandNotFound, CommandNotExecutable."""
    if "/" in name:
        problem = _problem(name)
        if problem is None:
            return name
        if problem in (errno.ENOENT, errno.ENOTDIR):
            raise CommandNotFound(f'exec: "{name}": stat {name}: {_word(problem)}')
        raise CommandNotExecutable(f'exec: "{name}": {_word(problem)}')
    denied = False
    for directory in (_DEFAULT_PATH if search is None else search).split(":"):
        candidate = os.path.join(directory or ".", name)
        problem = _problem(candidate) if name else errno.ENOENT
        if problem is None and candidate.startswith("/"):
            return candidate
        denied = denied or problem == errno.EACCES
    if denied:
        raise CommandNotExecutable(f'exec: "{name}": permission denied')
    raise CommandNotFound(f'exec: "{name}": executable file not found in $PATH')


def execute(path: str, arguments: list[str], variables: Mapping[str, str]) -> NoReturn:
    """Raises CommandNotFound (a missing interpreter, too), CommandNotExecutable."""
    try:
        os.execve(path, arguments, variables)
    except FileNotFoundError:
        raise CommandNotFound(f"exec {path}: no such file or directory") from None
    except OSError as error:
        raise CommandNotExecutable(f"exec {path}: {_words(error)}") from error
    except ValueError as error:  # a NUL in an argument
        raise InvalidInput(f"exec {path}: {error}") from error


def _problem(path: str) -> int | None:
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    if stat.S_ISDIR(status.st_mode):
        return errno.EISDIR
    return None if os.access(path, os.X_OK, effective_ids=True) else errno.EACCES


def _words(error: OSError) -> str:
    return _word(error.errno or 0)


def _word(number: int) -> str:
    return os.strerror(number).lower()
