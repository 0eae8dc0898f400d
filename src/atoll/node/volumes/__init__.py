"""Volumes of pods: from a pod's spec to host paths that its containers mount.

payload   what files a configMap, secret, downwardAPI or projected volume holds: pure but for the fetching
atomic    writes such files so that a reader sees all of the old or all of the new
tokens    service-account tokens, asked for anew before they expire
claims    persistentVolumeClaim to the directory behind it
subpath   a part of a volume, safe from symlinks in it
ownership fsGroup
volumes   all volumes of one pod: prepare, refresh, tear down
"""

from atoll.node.volumes.errors import VolumeError
from atoll.node.volumes.volumes import Volumes

__all__ = ["VolumeError", "Volumes"]
