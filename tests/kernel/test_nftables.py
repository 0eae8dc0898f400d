"""Transactions of nftables, in a namespace of their own."""

from __future__ import annotations

import json

import pytest

from atoll.kernel import netns
from atoll.kernel.nftables import Nftables, NftablesError


@pytest.fixture
def nft(instance):
    path = instance.home / "ns"
    with netns.create(path, Nftables) as nft:
        yield nft
    netns.delete(path)


def sets(nft):
    return [item["set"] for item in json.loads(nft.query("list table ip t"))["nftables"] if "set" in item]


def test_a_transaction_is_whole_or_nothing(nft):
    nft.run("table ip t { set s { type inet_service; }\n}")
    nft.run("add element ip t s { 80 }\nadd element ip t s { 81 }")
    with pytest.raises(NftablesError, match="refused a change"):
        nft.run("add element ip t s { 82 }\ndelete element ip t s { 999 }")
    assert sets(nft)[0]["elem"] == [80, 81]


def test_errors_say_what_was_asked(nft):
    with pytest.raises(NftablesError, match="syntax error") as caught:
        nft.run("nonsense")
    assert caught.value.commands == "nonsense"
    with pytest.raises(NftablesError):
        nft.query("list table ip missing")
    nft.run("table ip t")  # and the context still serves


def test_closed(nft):
    nft.close()
    nft.close()
    with pytest.raises(NftablesError, match="closed"):
        nft.run("table ip t")
