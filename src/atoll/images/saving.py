"""What `docker save` takes its words for: names, repositories, ids."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

from atoll.errors import InvalidInput, NotFound
from atoll.images.archive_out import ArchiveWriter
from atoll.images.blobs import Blobs
from atoll.images.bridge import produce
from atoll.images.catalog import Catalog, canonical
from atoll.images.layertar import LayerTars
from atoll.images.model import Descriptor, Image
from atoll.images.reference import Reference, parse


class Saver:
    def __init__(self, catalog: Catalog, blobs: Blobs, tars: LayerTars) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._tars = tars

    def save(self, references: Sequence[str]) -> AsyncIterator[bytes]:
        """Raises NotFound and InvalidInput before the first chunk."""
        wanted: dict[str, tuple[Image, list[Reference]]] = {}
        for text in references:
            for image, name in self.named(text):
                names = wanted.setdefault(image.id, (image, []))[1]
                if name is not None and name not in names:
                    names.append(name)
        if not wanted:
            raise InvalidInput("no images to save")
        return self.archive(list(wanted.values()))

    def archive(self, wanted: Sequence[tuple[Image, Sequence[Reference]]]) -> AsyncIterator[bytes]:
        return produce(ArchiveWriter(self._blobs, self._tars).write(wanted))

    def manifest(self, image: Image) -> Descriptor:
        """Of what an archive of IMAGE has for it. Blocks."""
        return ArchiveWriter(self._blobs, self._tars).manifest(image)[0]

    def named(self, text: str) -> Iterator[tuple[Image, Reference | None]]:
        """The images a word stands for, each with the name it is saved under. Raises NotFound."""
        try:
            image = self._catalog.resolve(text)
        except NotFound:
            image = None
        if image is not None and self._catalog.names_id(text, image):
            yield image, None
            return
        name = parse(text)
        if name.tag or name.digest:
            yield self._catalog.resolve(text), canonical(name) if name.tag and not name.digest else None
            return
        found = [(other, parse(tag)) for other in self._catalog.all() for tag in other.repo_tags if parse(tag).name == name.name]
        if not found:
            self._catalog.resolve(text)
        yield from found
