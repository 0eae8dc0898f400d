"""Containers: what they are, how they live, and what can be seen of them.

What they are: `record` (a container's row, and the container at run time), `registry` (all of them, by id and name), `config` (the body of
POST /containers/create, checked), `mounts`, `layers` (its stack of directories), `bundle` (the OCI config handed to the runtime).

How they live: `create`, `lifecycle` (start, stop, end: rows around acts), `restart` (policies), `health` (checks), `networking` (endpoints
and files), `removal`, `recovery` (what a crash cut short), `signals`.

What can be seen: `inspect`, `listing`, `logs`, `stats`, `top`, `rootfs` (the merged root, from outside), `archive` (copying in and out),
`changes` (diff, export, commit). `containers` is the face over all of it.
"""
