"""Packets between engine and keeper: long ones, cut ones, descriptors, and what is not ours."""

from __future__ import annotations

import os
import socket

import pytest

from atoll.runtime import protocol


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("size", [0, 100, protocol.INLINE_MAX, 3_000_000])
def test_messages_of_any_length(pair, size):
    ours, theirs = pair
    message = {"id": 1, "text": "ü" * size}
    protocol.send(ours, message)
    assert protocol.receive(theirs) == (message, [])


def test_descriptors_travel(pair):
    ours, theirs = pair
    read_end, write_end = os.pipe()
    protocol.send(ours, {"x": "y" * 200_000}, (read_end,))
    os.close(read_end)
    message, (received,) = protocol.receive(theirs)
    os.write(write_end, b"through")
    assert os.read(received, 100) == b"through"
    assert not os.get_inheritable(received)
    assert len(message["x"]) == 200_000
    os.close(received)
    os.close(write_end)


def test_end_and_nothing_yet(pair):
    ours, theirs = pair
    with pytest.raises(BlockingIOError):
        protocol.receive(theirs)
    ours.close()
    assert protocol.receive(theirs) is None


@pytest.mark.parametrize("packet", [b"[]", b"{", b"\xff\xfe", b'"text"', b'{"memfd":true}', b"x" * 100_000])
def test_foreign_packets(pair, packet):
    ours, theirs = pair
    ours.send(packet)
    with pytest.raises(protocol.ProtocolError):
        protocol.receive(theirs)


def test_last_words_of_a_peer_that_did_not_listen():
    """The kernel tells of unread words first (ECONNRESET), and only then what the peer had said."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        protocol.send(ours, {"unread": True})
        protocol.send(theirs, {"error": "why"})
        theirs.close()
        assert protocol.receive(ours) == ({"error": "why"}, [])
        assert protocol.receive(ours) is None
