"""All containers of the instance, by id, name and unambiguous beginning of an id, kept in step with the database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from atoll.engine.containers.record import Container, Record, Status
from atoll.engine.db import Database
from atoll.engine.names import check_name, random_name
from atoll.errors import Conflict, InvalidInput, NotFound


class Registry:
    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        self._directory = directory
        self._by_id: dict[str, Container] = {}
        self._names: dict[str, str] = {}

    def load(self) -> None:
        for data in self._database.containers():
            record = Record.decode(data)
            self._by_id[record.id] = Container(record, self._directory / record.id, self._write)
            self._names[record.name] = record.id

    def _write(self, record: Record) -> None:
        self._database.put_container(record.id, record.name, record.encode())

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, record: Record) -> Container:
        """A new container, its row still to be written (`Container.save`). The name must have been taken by `claim`."""
        container = Container(record, self._directory / record.id, self._write)
        self._by_id[record.id] = container
        self._names[record.name] = record.id
        return container

    def claim(self, name: str | None, container_id: str) -> str:
        """Takes `name` (or a random one) for `container_id`. Raises InvalidInput, and Conflict where another has it."""
        if not name:
            chosen = random_name(self._names)
        else:
            chosen = check_name(name)
            holder = self._names.get(chosen)
            if holder is not None and holder != container_id:
                raise Conflict(
                    f'Conflict. The container name "/{chosen}" is already in use by container "{holder}". '
                    "You have to remove (or rename) that container to be able to reuse that name."
                )
        self._names[chosen] = container_id
        return chosen

    def release(self, name: str, container_id: str) -> None:
        if self._names.get(name) == container_id:
            del self._names[name]

    def forget(self, container: Container) -> None:
        self._database.delete_container(container.id)
        self._by_id.pop(container.id, None)
        self.release(container.name, container.id)

    def find(self, container_id: str) -> Container | None:
        """By whole id only: for those who are not users."""
        return self._by_id.get(container_id)

    def get(self, reference: str) -> Container:
        """By id, name (with or without its slash) or the unique beginning of an id. Raises NotFound, InvalidInput with Docker's words."""
        container = self._by_id.get(reference) or self._by_id.get(self._names.get(reference.removeprefix("/"), ""))
        if container is None:
            container = self._by_prefix(reference)
        if container is None or container.status is Status.CREATING:
            raise NotFound(f"No such container: {reference}")
        return container

    def _by_prefix(self, prefix: str) -> Container | None:
        if not prefix or len(prefix) >= 64:
            return None
        found = [container for identifier, container in self._by_id.items() if identifier.startswith(prefix)]
        if len(found) > 1:
            raise InvalidInput(f"multiple IDs found with provided prefix: {prefix}")
        return found[0] if found else None
