"""Named volumes: directories that outlive containers.

`Volumes` is the face, shaped like the Docker Engine API; `copy_up` fills an empty volume from the image's content at its mount point.
"""

from atoll.volumes.copyup import copy_up
from atoll.volumes.volumes import Volume, Volumes

__all__ = ["Volume", "Volumes", "copy_up"]
