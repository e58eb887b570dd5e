"""Collections as fields. Each lives in one cell as an immutable value, so it is journalled as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar, cast, overload

from quiesce.world.hashing import encode
from quiesce.world.state import Field, State, UseOfDeadObject

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


def _as_set(items: Iterable[T]) -> tuple[T, ...]:
    # Equal sets must be equal tuples: values are equal exactly if their encodings are.
    return tuple(item for _, item in sorted({encode(item): item for item in items}.items()))


def _as_dict(pairs: Iterable[tuple[K, V]]) -> tuple[tuple[K, V], ...]:
    return tuple(pair for _, pair in sorted({encode(pair[0]): pair for pair in pairs}.items()))


class _Bound:
    __slots__ = ("_name", "_obj", "_slot")

    def __init__(self, obj: State, name: str, slot: int) -> None:
        self._obj = obj
        self._name = name
        self._slot = slot

    def _items(self) -> tuple[object, ...]:
        obj = self._obj
        read = obj.world.read
        if obj.mortal and not read(obj.first):
            raise UseOfDeadObject(obj.path, self._name)
        return read(self._slot)  # type: ignore[no-any-return]

    def _store(self, items: tuple[object, ...]) -> None:
        self._obj._check(self._name)
        self._obj.world.write(self._slot, items)

    def __len__(self) -> int:
        return len(self._items())

    def __bool__(self) -> bool:
        return bool(self._items())

    def clear(self) -> None:
        """Remove everything."""
        self._store(())


class BoundList(_Bound, Generic[T]):
    """A list field of one object."""

    def __iter__(self) -> Iterator[T]:
        return cast("Iterator[T]", iter(self._items()))

    def __getitem__(self, index: int) -> T:
        return self.as_tuple()[index]

    def __contains__(self, item: object) -> bool:
        return item in self._items()

    def append(self, item: T) -> None:
        """Add at the end."""
        self._store((*self._items(), item))

    def remove(self, item: T) -> None:
        """Remove the first equal item; raises ValueError when there is none."""
        items = list(self._items())
        items.remove(item)
        self._store(tuple(items))

    def replace(self, items: tuple[T, ...]) -> None:
        """Put other items in the place of all."""
        self._store(items)

    def as_tuple(self) -> tuple[T, ...]:
        """Return the items."""
        return cast("tuple[T, ...]", self._items())


class BoundSet(_Bound, Generic[T]):
    """A set field of one object, kept sorted so that equal sets are equal states."""

    def __iter__(self) -> Iterator[T]:
        return cast("Iterator[T]", iter(self._items()))

    def __contains__(self, item: object) -> bool:
        return item in self._items()

    def add(self, item: T) -> None:
        """Add if absent."""
        items = self._items()
        if item not in items:
            self._store(_as_set((*items, item)))

    def discard(self, item: T) -> None:
        """Remove if present."""
        items = self._items()
        if item in items:
            self._store(tuple(other for other in items if other != item))


class BoundDict(_Bound, Generic[K, V]):
    """A dict field of one object, kept sorted by key so that equal dicts are equal states."""

    def _pairs(self) -> tuple[tuple[K, V], ...]:
        return cast("tuple[tuple[K, V], ...]", self._items())

    def __iter__(self) -> Iterator[K]:
        return (key for key, _ in self._pairs())

    def __contains__(self, key: object) -> bool:
        return any(known == key for known, _ in self._pairs())

    def __getitem__(self, key: K) -> V:
        for known, value in self._pairs():
            if known == key:
                return value
        raise KeyError(key)

    def get(self, key: K) -> V | None:
        """Return the value of ``key``, or None."""
        return next((value for known, value in self._pairs() if known == key), None)

    def __setitem__(self, key: K, value: V) -> None:
        self._store(_as_dict((*self._pairs(), (key, value))))

    def __delitem__(self, key: K) -> None:
        pairs = self._pairs()
        rest = tuple(pair for pair in pairs if pair[0] != key)
        if len(rest) == len(pairs):
            raise KeyError(key)
        self._store(rest)

    def items(self) -> tuple[tuple[K, V], ...]:
        """Return the pairs."""
        return self._pairs()


class StateList(Field[tuple[T, ...]]):
    """Declares a list field: ``actions: StateList[IrqAction] = StateList()``."""

    def __init__(self, *items: T) -> None:
        super().__init__(items)

    @overload  # type: ignore[override]
    def __get__(self, obj: None, owner: type) -> StateList[T]: ...
    @overload
    def __get__(self, obj: State, owner: type) -> BoundList[T]: ...
    def __get__(self, obj: State | None, owner: type) -> StateList[T] | BoundList[T]:
        return self if obj is None else BoundList(obj, self.name, obj.first + self.index)

    def __set__(self, obj: State, value: Iterable[T]) -> None:
        super().__set__(obj, tuple(value))


class StateSet(Field[tuple[T, ...]]):
    """Declares a set field."""

    def __init__(self) -> None:
        super().__init__(())

    @overload  # type: ignore[override]
    def __get__(self, obj: None, owner: type) -> StateSet[T]: ...
    @overload
    def __get__(self, obj: State, owner: type) -> BoundSet[T]: ...
    def __get__(self, obj: State | None, owner: type) -> StateSet[T] | BoundSet[T]:
        return self if obj is None else BoundSet(obj, self.name, obj.first + self.index)

    def __set__(self, obj: State, value: Iterable[T]) -> None:
        super().__set__(obj, _as_set(value))


class StateDict(Field[tuple[tuple[K, V], ...]], Generic[K, V]):
    """Declares a dict field."""

    def __init__(self) -> None:
        super().__init__(())

    @overload  # type: ignore[override]
    def __get__(self, obj: None, owner: type) -> StateDict[K, V]: ...
    @overload
    def __get__(self, obj: State, owner: type) -> BoundDict[K, V]: ...
    def __get__(self, obj: State | None, owner: type) -> StateDict[K, V] | BoundDict[K, V]:
        return self if obj is None else BoundDict(obj, self.name, obj.first + self.index)

    def __set__(self, obj: State, value: Mapping[K, V] | Iterable[tuple[K, V]]) -> None:
        super().__set__(obj, _as_dict(value.items() if isinstance(value, Mapping) else value))
