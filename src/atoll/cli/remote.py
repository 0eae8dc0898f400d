"""An engine on another machine: TCP with TLS, or ssh, as a socket that the rest of the command line uses like its own.

With TLS a thread decrypts between the connection and one end of a socket pair; the other end is what `connect` returns. So polling,
half-closing (`echo x | atoll run -i`: a TLS close_notify) and closing work as on a unix socket; a wrapped TLS socket has none of that.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import subprocess
import threading
from typing import NamedTuple

CHUNK = 1 << 16
TIMEOUT_S = 15  # to connect and shake hands


class Tls(NamedTuple):
    """Files of PEM (empty: the system's authorities, no certificate), and whether to check whom we talk to."""

    authority: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """Raises OSError for files that cannot be read."""
        context = ssl.create_default_context(cafile=self.authority or None)
        context.set_alpn_protocols(["http/1.1"])
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate and os.path.exists(self.certificate):
            context.load_cert_chain(self.certificate, self.key)
        return context


def connect(host: str, port: int, tls: Tls | None) -> socket.socket:
    """Raises OSError: no connection, or a certificate that is not trusted (ssl.SSLError)."""
    context = tls.context() if tls is not None else None
    raw = socket.create_connection((host, port), timeout=TIMEOUT_S)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None:
        raw.settimeout(None)
        return raw
    try:
        session = _Session(raw, context, host)
        session.shake_hands()
        raw.settimeout(None)
        ours, inner = socket.socketpair()
    except BaseException:
        raw.close()
        raise
    threading.Thread(target=session.carry, args=(inner,), daemon=True).start()
    return ours


def connect_ssh(where: str) -> socket.socket:
    """By ssh to USER@HOST[:PORT], where docker, or atoll under that name, joins us to its engine's socket. Raises OSError."""
    host, _, port = where.partition("/")[0].partition(":")
    words = ["ssh", "-T", *(["-p", port] if port else []), "--", host, "docker", "system", "dial-stdio"]
    ours, inner = socket.socketpair()
    with inner:
        subprocess.Popen(words, stdin=inner.fileno(), stdout=inner.fileno())
    return ours


class _Session:
    """TLS over a connected socket, between memory buffers: both directions end on their own."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._raw = raw
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_hostname=host)

    def shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            else:
                self._flush()
                return

    def carry(self, inner: socket.socket) -> None:
        """Until the engine's side ends, or ours is closed."""
        poller = select.poll()
        poller.register(self._raw, select.POLLIN)
        poller.register(inner, select.POLLIN)
        try:
            while True:
                for fd, _ in poller.poll():
                    if fd == inner.fileno():
                        if not self._send(inner.recv(CHUNK)):
                            poller.unregister(inner)
                    elif not self._receive(inner):
                        return
        except OSError:
            pass  # either side has gone: the other one sees it by its closed socket
        finally:
            inner.close()
            self._raw.close()

    def _send(self, data: bytes) -> bool:
        if data:
            self._tls.write(data)
        else:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.unwrap()  # our close_notify; theirs may take as long as it likes
        self._flush()
        return bool(data)

    def _receive(self, inner: socket.socket) -> bool:
        self._fill()
        while True:
            try:
                data = self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                self._flush()
                return True
            except ssl.SSLZeroReturnError:
                return False
            if not data:
                return False
            inner.sendall(data)

    def _fill(self) -> None:
        data = self._raw.recv(CHUNK)
        if not data:
            raise ConnectionResetError("the engine closed the connection: does it accept this client's certificate?")
        self._received.write(data)

    def _flush(self) -> None:
        if data := self._to_send.read():
            self._raw.sendall(data)
