"""Basic authentication by an htpasswd file with bcrypt hashes, as `htpasswd -B` writes it.

bcrypt is slow on purpose and clients send the password with every request, so a pair that was right is remembered, as a keyed hash in
memory, until the file changes. Checks run in threads, few at a time: guessing does not take the machine. A name nobody has costs as much as
a wrong password. Weaker hashes (MD5, SHA-1, crypt, plain) are refused when the file is read.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import os
import re
import secrets
from pathlib import Path

import bcrypt

from atoll.errors import InvalidInput
from atoll.registry.errors import Code, Refused

log = logging.getLogger("atoll.registry")

REALM = "Atoll registry"
CHECKS_AT_ONCE = 2
PASSWORD_MAX = 72  # bytes bcrypt looks at; htpasswd and every other reader ignore the rest too
REMEMBERED_MAX = 1000
_BCRYPT = re.compile(rb"\$2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
_NOBODY = b"$2b$10$FPT9rbk6T3ObggWhocJkFu/umZ3PtKB2tzVD8eNYnd3lDvSgagg1y"  # of no known password: something to spend the time on


class Htpasswd:
    """Users of one file. Raises InvalidInput, naming the line, where it cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key = secrets.token_bytes(32)
        self._slots = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._right: set[bytes] = set()
        self._stamp: tuple[int, int, int] = (0, 0, 0)
        self._users: dict[str, bytes] = {}
        self._load()

    def _load(self) -> None:
        try:
            found = os.stat(self._path)
            users = _parse(self._path)
        except OSError as error:
            raise InvalidInput(f"the password file {self._path} cannot be read: {error.strerror}") from error
        self._users = users
        self._right = set()
        self._stamp = (found.st_mtime_ns, found.st_size, found.st_ino)

    def _refresh(self) -> None:
        """Takes a changed file in; a broken one leaves the users as they were."""
        try:
            found = os.stat(self._path)
            if (found.st_mtime_ns, found.st_size, found.st_ino) != self._stamp:
                self._load()
                log.info("read %s again: %d users", self._path, len(self._users))
        except (OSError, InvalidInput) as error:
            log.warning("the users stay as they were: %s", error)

    async def check(self, authorization: str | None) -> str:
        """The user an Authorization field proves. Raises Refused UNAUTHORIZED with a challenge."""
        if authorization is None:
            raise _unauthorized("authentication required")
        user, password = _basic(authorization)
        self._refresh()
        token = hmac.digest(self._key, user.encode() + b":" + password, hashlib.sha256)  # a name holds no colon
        if token in self._right:
            return user
        async with self._slots:
            right = await asyncio.to_thread(_verify, password, self._users.get(user))
        if not right:
            raise _unauthorized("wrong user name or password")
        if len(self._right) >= REMEMBERED_MAX:
            self._right.clear()
        self._right.add(token)
        return user


def _verify(password: bytes, hashed: bytes | None) -> bool:
    try:
        return bcrypt.checkpw(password[:PASSWORD_MAX], hashed or _NOBODY) and hashed is not None
    except ValueError:  # a NUL in the password
        return False


def _basic(authorization: str) -> tuple[str, bytes]:
    scheme, _, encoded = authorization.partition(" ")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        if scheme.lower() == "basic" and colon:
            return user.decode(), password
    except ValueError:
        pass
    raise _unauthorized("the Authorization field is not of the Basic scheme")


def _parse(path: Path) -> dict[str, bytes]:
    users = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        user, colon, hashed = text.partition(b":")
        try:
            name = user.decode()
        except UnicodeDecodeError:
            raise InvalidInput(f"{path}, line {number}: the user name is not UTF-8") from None
        if not colon or not name:
            raise InvalidInput(f"{path}, line {number}: not of the form user:hash")
        if not _BCRYPT.fullmatch(hashed):
            raise InvalidInput(f"{path}, line {number}: the password of {name!r} is not hashed by bcrypt: make it with `htpasswd -B`")
        users[name] = hashed
    return users


def _unauthorized(message: str) -> Refused:
    return Refused(Code.UNAUTHORIZED, message, headers=(("WWW-Authenticate", f'Basic realm="{REALM}", charset="UTF-8"'),))
