"""Type information and ELF files made for tests."""

import struct

INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF = 1, 2, 3, 4, 5, 6, 8

Member = tuple[str, int, int, int]
"""Name, type, bit offset, width of a bit-field or 0."""


class BtfMaker:
    """Collects types; each gets the next number, from 1 on."""

    def __init__(self) -> None:
        self.types: list[bytes] = []
        self.text = bytearray(b"\0")

    def _name(self, name: str) -> int:
        if not name:
            return 0
        self.text += name.encode() + b"\0"
        return len(self.text) - len(name) - 1

    def _add(self, name: str, info: int, size: int, rest: bytes = b"") -> int:
        self.types.append(struct.pack("<III", self._name(name), info, size) + rest)
        return len(self.types)

    def integer(self, name: str, size: int) -> int:
        return self._add(name, INT << 24, size, struct.pack("<I", 8 * size))

    def refer(self, kind: int, number: int, name: str = "") -> int:
        return self._add(name, kind << 24, number)

    def enum(self, name: str, members: dict[str, int]) -> int:
        rest = b"".join(struct.pack("<Ii", self._name(member), value) for member, value in members.items())
        return self._add(name, ENUM << 24 | len(members), 4, rest)

    def structure(self, name: str, size: int, members: list[Member], kind: int = STRUCT) -> int:
        fields = any(width for *_, width in members)
        rest = b"".join(
            struct.pack("<III", self._name(member), number, width << 24 | bit if fields else bit)
            for member, number, bit, width in members
        )
        return self._add(name, (1 << 31 if fields else 0) | kind << 24 | len(members), size, rest)

    def data(self) -> bytes:
        types = b"".join(self.types)
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self.text))
        return head + types + bytes(self.text)


def elf(sections: dict[str, bytes]) -> bytes:
    """Return an ELF file with these sections and nothing else."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*sections, ".shstrtab"))
    body, entries = b"", [struct.pack("<IIQQQQIIQQ", *([0] * 10))]
    for name, data in (*sections.items(), (".shstrtab", names)):
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        entries.append(struct.pack("<IIQQQQIIQQ", at, 1, 0, 0, 64 + len(body), len(data), 0, 0, 1, 0))
        body += data
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, len(entries), len(entries) - 1
    )
    return head + body + b"".join(entries)
