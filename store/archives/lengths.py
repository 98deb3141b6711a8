"""Lengths: the lengths of a store's archives that are known, in memory and in the index.

Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bentofs.store.archives.chunk_sizes import Sizes
from bentofs.store.archives.compression import Compression, is_compressed
from bentofs.store.archives.index import Index
from bentofs.store.errors import SourceChangedError
from bentofs.store.formats.write.registry import LAYOUT_VERSION, Format
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag
from bentofs.store.util.budgeted_cache import BudgetedCache
from bentofs.store.util.memory_budget import MemoryBudget

_KEPT = 2 << 20  # bytes, over all archives whose length is known
_LENGTH = 400  # bytes of one known length


class ArchiveKey(NamedTuple):
    """The key of one archive. It does not hold the model itself."""

    tag: Tag
    generation: tuple[int, int, int]
    format: str
    revision: int  # of the sizes that it is laid out by


class Lengths:
    """The known lengths of one store's archives."""

    def __init__(
        self, index: Index, sizes: Sizes, compression: Compression, formats: Sequence[Format], budget: MemoryBudget
    ) -> None:
        """`sizes`: those that archives are laid out by; `formats`: those that a listing asks for."""
        self._index = index
        self._sizes = sizes
        self._compression = compression
        self._formats = formats
        self._known: BudgetedCache[ArchiveKey, int] = BudgetedCache(budget, _KEPT, least=_KEPT // 2)

    def key(self, model: Model, kind: Format) -> ArchiveKey:
        """Return the key of an archive as it is laid out now."""
        return ArchiveKey(model.tag, model.generation, kind.name, self._sizes.revision)

    def bytes_name(self, model: Model, kind: Format) -> str:
        """Return a text that is the same only for the same bytes of an archive, in all processes."""
        name = f"{model.fingerprint()}/{kind.name}/{LAYOUT_VERSION}"
        if kind.codec is not None and is_compressed(kind, self._compression):
            name += f"/{self._compression.value}/{kind.codec()}"
        return name

    def get(self, key: ArchiveKey) -> int | None:
        """Return the length of an archive; None if it is not in memory."""
        return self._known.get(key)

    def put(self, key: ArchiveKey, length: int) -> None:
        """Note the length of an archive, in memory."""
        self._known.put(key, length, _LENGTH)

    def kept(self, model: Model, kind: Format) -> int | None:
        """Return the length of a compressed archive that the index knows. Look all formats up at once: a listing asks
        for each of them."""
        kinds = [each for each in {kind, *self._formats} if is_compressed(each, self._compression)]
        names = {self.bytes_name(model, each): each for each in kinds}
        found = None
        for name, length in self._index.archive_lengths(list(names)).items():
            self.put(self.key(model, names[name]), length)
            found = length if names[name] is kind else found
        return found

    def keep(self, model: Model, kind: Format, length: int, *, is_kept: bool) -> None:
        """Keep the length of an archive that was laid out just now, in memory and, if `is_kept`, in the index.

        Raises:
            SourceChangedError: another length was told, since the index was wrong. The next look tells this one."""
        key = self.key(model, kind)
        told = self.get(key)
        if told is not None and told != length:
            self._sizes.distrust_lengths()
            raise SourceChangedError(f"the length of a {kind.name} of {model.tag} in the index was wrong")
        self.put(key, length)
        if is_kept and told is None:
            self._index.keep_archive_length(self.bytes_name(model, kind), length)

    def forget(self, tag: Tag) -> None:
        """Drop the lengths of a model that is no longer in the store."""
        self._known.drop_where(lambda key: key.tag == tag)
