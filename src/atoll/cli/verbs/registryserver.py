"""`registry serve|gc|fsck`: a registry of one's own, in the foreground."""

from __future__ import annotations

import sys

from atoll.cli.flags import Command, Flag, Options, UsageError
from atoll.cli.session import CommandFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from atoll.config import Instance
    from atoll.registry import Settings

DEFAULT_ADDRESS = "127.0.0.1:5000"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
ROOT = Flag("root", "", "string", "Directory of a registry of its own (default: the instance's, which shares the engine's content)", "path")


def serve() -> Command:
    flags = (
        Flag("addr", "", "string", f"Address to listen on (default {DEFAULT_ADDRESS}; port 0 takes a free one)", "host:port"),
        ROOT,
        Flag(
            "htpasswd",
            "",
            "string",
            "Users, in a file made by htpasswd -B; each may do all, others nothing; without it everybody may do all",
            "path",
        ),
        Flag("tls-cert", "", "string", "Certificate, in PEM", "path"),
        Flag("tls-key", "", "string", "The certificate's key, in PEM", "path"),
        Flag("max-blob", "", "string", "Refuse layers larger than this (default no limit)", "bytes"),
        Flag("upload-expiry", "", "string", "Forget unfinished uploads after this long (default 24h)", "duration"),
    )
    return Command(_serve, "[OPTIONS]", "Serve a registry until interrupted", flags, maximum=0)


def _serve(options: Options, _: list[str]) -> int:
    import logging

    from atoll import process
    from atoll.registry import serve as serve_registry

    settings = _settings(options)
    host, shown = settings.host, f"[{settings.host}]" if ":" in settings.host else settings.host
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)

    def ready(port: int) -> None:
        print(f"Registry at {'https' if settings.tls_cert else 'http'}://{shown}:{port}, data in {settings.root}", flush=True)
        if host not in LOOPBACK and not settings.htpasswd:
            print("Warning: everybody who reaches this address may push and delete; name users with --htpasswd.", file=sys.stderr)
        elif host not in LOOPBACK and not settings.tls_cert:
            print("Warning: passwords cross the network in the clear; add --tls-cert and --tls-key.", file=sys.stderr)

    process.run(serve_registry(settings, ready))
    return 0


def _settings(options: Options) -> Settings:
    from pathlib import Path

    from atoll.images.sharing import engine_blobs
    from atoll.registry import Settings
    from atoll.registry.uploads import EXPIRY_S
    from atoll.units import parse_bytes

    host, port = _address(options["addr"] or DEFAULT_ADDRESS)
    return Settings(
        root=_root(options),
        beside=None if options["root"] else engine_blobs(_instance()),
        host=host,
        port=port,
        htpasswd=Path(options["htpasswd"]) if options["htpasswd"] else None,
        tls_cert=Path(options["tls-cert"]) if options["tls-cert"] else None,
        tls_key=Path(options["tls-key"]) if options["tls-key"] else None,
        blob_max=parse_bytes(options["max-blob"]) if options["max-blob"] else None,
        upload_expiry_s=_seconds(options["upload-expiry"], EXPIRY_S),
    )


def _seconds(text: str | None, default: float) -> float:
    from atoll.units import parse_duration

    return parse_duration(text) / 1e9 if text else default


def _address(text: str) -> tuple[str, int]:
    """`host:port`, `:port` for every address, `[::1]:port`."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(f'invalid argument "{text}" for "--addr" flag: write host:port')
    return host.strip("[]") or "0.0.0.0", int(port)


def _root(options: Options) -> Path:
    from pathlib import Path

    from atoll.images.sharing import registry_root

    return Path(options["root"]) if options["root"] else registry_root(_instance())


def _instance() -> Instance:
    from atoll.config import Instance

    return Instance.from_environment()


def gc() -> Command:
    flags = (
        ROOT,
        Flag("untagged", "", "bool", "Also delete manifests that no tag and no index refers to"),
        Flag("grace", "", "string", "Keep what was pushed within this time (default 1h)", "duration"),
    )
    return Command(_gc, "[OPTIONS]", "Delete what nothing refers to; the registry may serve meanwhile", flags, maximum=0)


def _gc(options: Options, _: list[str]) -> int:
    from atoll.cli.human import size
    from atoll.registry import collect
    from atoll.registry.collect import GRACE_S

    done = collect(_root(options), grace_s=_seconds(options["grace"], GRACE_S), untagged=options["untagged"])
    print(f"Deleted: {done.manifests} manifests, {done.blobs + len(done.strays)} blobs, {done.uploads} unfinished uploads")
    print(f"Total reclaimed space: {size(done.size)}")
    return 0


def fsck() -> Command:
    return Command(_fsck, "[OPTIONS]", "Check that all content is there and is what its digest says", (ROOT,), maximum=0)


def _fsck(options: Options, _: list[str]) -> int:
    from atoll.registry import check

    faults = check(_root(options))
    for fault in faults:
        print(fault)
    if faults:
        raise CommandFailed(f"{len(faults)} faults: push the images concerned again")
    print("The registry is sound.")
    return 0
