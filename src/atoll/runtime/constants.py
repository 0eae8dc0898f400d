"""Names that the spec maker, the client and the keeper must agree on."""

from __future__ import annotations

EXPECTED_S = 1.0  # how long the start of a container may be expected
SECCOMP_DIGEST = "dev.atoll.seccomp.digest"  # annotation: SHA-256 of linux.seccomp, so that nobody need compute it at each start
EXIT_FILE = "exit.json"  # in the bundle: an ExitStatus, for whoever comes after the keeper
INIT = "dev.atoll.init"  # annotation "true": a reaper as process 1, the program its child
LAYER = "lowerdir+"  # option of an overlay mount, "=<path>": a layer, the top first, as Linux 6.5 has them and as is done for older ones
MOUNT_NAMESPACE = "x-atoll.mountns"  # option of a bind, "=<path>": where its source is to be looked for
SUBPATH = "x-atoll.subpath"  # option of a bind, "=<relative path>": a part of the source, found inside it by the container's own init
