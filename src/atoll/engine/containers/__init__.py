"""Containers: what they are (record, config), how they live (create, lifecycle, restart, recovery) and what can be seen of them.

config     the body of POST /containers/create, checked        record     the row of a container, and the container at run time
registry   all of them, by id, prefix and name                 create     from image and body to a row and a directory
mounts     binds, volumes, tmpfs                               bundle     the OCI config handed to the runtime
resources  limits as OCI linux.resources                       users      User and GroupAdd, by the container's own passwd and group
lifecycle  start, stop, exit: rows around acts                 restart    policies and back-off
recovery   what a crash cut short                              networking endpoints and files of a container
inspect    GET /containers/{id}/json                           listing    GET /containers/json
logs       the log file, read back and followed                health     health checks
rootfs     the merged root, for who is outside                 archive    copying in and out
stats      cgroup counters in Docker's shape                   changes    diff, export, commit
"""
