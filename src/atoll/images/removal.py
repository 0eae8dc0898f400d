"""Removing images by Docker's rules: when a name goes, when the image goes with it, and what stands in the way.

The rules and texts are those of the engine everyone scripts against: removing the last name of an image that a container uses must be
forced, removing an image under a running container cannot be.
"""

from __future__ import annotations

from collections.abc import Iterable

from atoll.errors import Conflict
from atoll.images.catalog import Catalog, canonical
from atoll.images.collector import Collector
from atoll.images.database import Database
from atoll.images.model import Image, ImageUser, Users
from atoll.images.reference import Reference, parse, parse_canonical

Record = dict[str, str]
SHORT = 12


class Remover:
    def __init__(self, database: Database, catalog: Catalog, collector: Collector, users: Users) -> None:
        self._database = database
        self._catalog = catalog
        self._collector = collector
        self._users = users

    def remove(self, text: str, *, force: bool, prune: bool) -> list[Record]:
        """Raises NotFound, Conflict."""
        image = self._catalog.resolve(text)
        names = self._names(image)
        records: list[Record] = []
        if not self._catalog.names_id(text, image):
            given = canonical(parse(text))
            if not force and _is_single(names):
                self._refuse_last_name(text, image)
            self._untag([given], records)
            names.remove(given)
            if given.digest is None and not any(name.name == given.name and name.tag for name in names):
                left = [name for name in names if name.name == given.name]
                self._untag(left, records)
                names = [name for name in names if name not in left]
            if names:
                return records
            self._delete(image, records, force=force, prune=prune, quiet=True)
        else:
            if _is_single(names):
                self._check(image, force=force, names=False)
                self._untag(names, records)
            self._delete(image, records, force=force, prune=prune, quiet=False)
        records.extend({"Deleted": chain} for chain in self._collector.collect())
        return records

    def remove_unused(self, images: Iterable[Image]) -> list[Record]:
        """Removes those of `images` that nothing uses, names and all, for prune."""
        records: list[Record] = []
        for image in images:
            if self._conflict(image, force=False, names=False):
                continue
            self._untag(self._names(image), records)
            self._delete(image, records, force=False, prune=False, quiet=True)
        records.extend({"Deleted": chain} for chain in self._collector.collect())
        return records

    def _names(self, image: Image) -> list[Reference]:
        return [parse_canonical(name) for kind in (False, True) for name in self._database.names_of(image.id, digests=kind)]

    def _untag(self, names: Iterable[Reference], records: list[Record]) -> None:
        for name in names:
            self._database.delete_name(str(name))
            records.append({"Untagged": name.familiar})

    def _delete(self, image: Image, records: list[Record], *, force: bool, prune: bool, quiet: bool) -> None:
        conflict = self._conflict(image, force=force, names=True)
        if conflict is not None:
            if quiet:
                return  # its last name is gone, the image stays for what uses it
            raise conflict
        self._untag(self._names(image), records)
        if any(user.image_id == image.id for user in self._users()):
            self._database.hide_image(image.id)
        else:
            self._database.delete_image(image.id)
            self._catalog.forget(image.id)
        records.append({"Deleted": image.id})
        if prune and image.parent and (row := self._database.image(image.parent)):
            parent = self._catalog.image(row)
            if not parent.repo_tags:
                self._delete(parent, records, force=False, prune=True, quiet=True)

    def _refuse_last_name(self, text: str, image: Image) -> None:
        user = next((user for user in self._users() if user.image_id == image.id), None)
        if user is not None:
            raise Conflict(
                f'conflict: unable to remove repository reference "{text}" (must force) - '
                f"container {user.container_id[:SHORT]} is using its referenced image {image.short_id}"
            )

    def _check(self, image: Image, *, force: bool, names: bool) -> None:
        conflict = self._conflict(image, force=force, names=names)
        if conflict is not None:
            raise conflict

    def _conflict(self, image: Image, *, force: bool, names: bool) -> Conflict | None:
        """What stands in the way. Force overrides names and stopped containers, never children or running containers."""
        users = [user for user in self._users() if user.image_id == image.id]
        running = _first(users, running=True)
        if self._database.children(image.id):
            return _conflict(image, "image has dependent child images", hard=True)
        if running:
            return _conflict(image, f"image is being used by running container {running.container_id[:SHORT]}", hard=True)
        if force:
            return None
        if names and self._names(image):
            return _conflict(image, "image is referenced in multiple repositories", hard=False)
        if users:
            return _conflict(image, f"image is being used by stopped container {users[0].container_id[:SHORT]}", hard=False)
        return None


def _first(users: list[ImageUser], *, running: bool) -> ImageUser | None:
    return next((user for user in users if user.running is running), None)


def _conflict(image: Image, why: str, *, hard: bool) -> Conflict:
    return Conflict(f"conflict: unable to delete {image.short_id} ({'cannot be forced' if hard else 'must be forced'}) - {why}")


def _is_single(names: list[Reference]) -> bool:
    """At most one tag, and every digest reference in that tag's repository."""
    return sum(name.tag is not None for name in names) <= 1 and len({name.name for name in names}) <= 1
