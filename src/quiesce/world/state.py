"""Objects of the model: declared fields over the cells of a World."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Generic, TypeVar, overload

from quiesce.world.hashing import Value, encode
from quiesce.world.world import World

T = TypeVar("T")
S = TypeVar("S", bound="State")


class UseOfDeadObject(Exception):
    """A field of an object was touched before the object was made or after its memory was given back."""

    def __init__(self, path: str, field: str) -> None:
        super().__init__(f"{path}.{field} accessed while {path} does not exist")
        self.path = path
        self.field = field


class Field(Generic[T]):
    """A field of a State class; ``default`` is its value in an object nobody wrote to."""

    def __init__(self, default: T) -> None:
        encode(default)
        self.default = default
        self.index = -1
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, obj: None, owner: type) -> Field[T]: ...
    @overload
    def __get__(self, obj: State, owner: type) -> T: ...
    def __get__(self, obj: State | None, owner: type) -> Field[T] | T:
        if obj is None:
            return self
        read, first = obj.world.read, obj.first
        if obj.mortal and not read(first):
            raise UseOfDeadObject(obj.path, self.name)
        return read(first + self.index)  # type: ignore[no-any-return]

    def __set__(self, obj: State, value: T) -> None:
        world, first = obj.world, obj.first
        if obj.mortal and not world.read(first):
            raise UseOfDeadObject(obj.path, self.name)
        world.write(first + self.index, value)


class State:
    """A handle on one object of the model, named by its path; get one with ``get`` or ``new``.

    Handles are interned, so identity is equality. A class whose objects come and go sets ``mortal``: touching
    such an object outside its life raises UseOfDeadObject.
    """

    fields: ClassVar[tuple[Field[Any], ...]] = ()
    mortal: ClassVar[bool] = False
    __slots__ = ("first", "path", "world")

    def __init_subclass__(cls) -> None:
        if sum(bool(getattr(base, "fields", ())) for base in cls.__bases__) > 1:
            raise TypeError(f"{cls.__name__}: fields can be inherited from one class only")
        inherited = [f for f in cls.fields if f.name not in vars(cls)]
        own = [f for f in vars(cls).values() if isinstance(f, Field)]
        cls.fields = tuple(inherited + own)
        for index, item in enumerate(cls.fields, start=1):
            if item.name in vars(State):
                raise TypeError(f"{cls.__name__}.{item.name}: every State has an attribute of this name")
            if item.index not in (-1, index):
                raise TypeError(f"{cls.__name__}.{item.name}: a field can be laid out in one class only")
            item.index = index

    def __init__(self, world: World, path: str) -> None:
        self.world = world
        self.path = path
        self.first = world.allocate(path, "exists", False)
        for item in self.fields:
            world.allocate(path, item.name, item.default)

    @classmethod
    def get(cls: type[S], world: World, path: str) -> S:
        """Return the handle of the object ``path``, living or not."""
        known = world.objects.get(path)
        if known is None:
            known = world.objects[path] = cls(world, path)
        if type(known) is not cls:
            raise TypeError(f"{path} is a {type(known).__name__}, not a {cls.__name__}")
        return known

    @classmethod
    def new(cls: type[S], world: World, path: str, **values: Value) -> S:
        """Bring the object ``path`` into being with the given field values and defaults for the rest."""
        obj = cls.get(world, path)
        if obj.exists:
            raise ValueError(f"{path} exists already")
        unknown = values.keys() - {item.name for item in cls.fields}
        if unknown:
            raise TypeError(f"{cls.__name__} has no field {min(unknown)!r}")
        world.write(obj.first, True)
        if not cls.mortal:
            obj._reset()
        for name, value in values.items():
            setattr(obj, name, value)
        return obj

    @classmethod
    def fresh(cls: type[S], world: World, prefix: str, start: int = 0, **values: Value) -> S:
        """Make a new object ``prefix/N`` with the lowest free number, so that equal situations are equal."""
        number = start
        while cls.get(world, f"{prefix}/{number}").exists:
            number += 1
        return cls.new(world, f"{prefix}/{number}", **values)

    @property
    def exists(self) -> bool:
        """Whether the object is in its life."""
        return bool(self.world.read(self.first))

    @property
    def number(self) -> int:
        """The number at the end of a path that ``fresh`` made."""
        return int(self.path.rsplit("/", 1)[1])

    def delete(self) -> None:
        """End the object's life: every field goes back to its default."""
        self._check("delete")
        self._reset()
        self.world.write(self.first, False)

    def _reset(self) -> None:
        for item in self.fields:
            self.world.write(self.first + item.index, item.default)

    def _check(self, field: str) -> None:
        if self.mortal and not self.world.read(self.first):
            raise UseOfDeadObject(self.path, field)

    def items(self) -> Iterator[tuple[str, Value]]:
        """Yield field names and values."""
        for item in self.fields:
            yield item.name, self.world.read(self.first + item.index)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"
