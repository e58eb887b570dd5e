"""Raw ACPI tables for tests, put together by hand."""

from quiesce.snapshot.table import sealed


def le(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def madt(*entries: bytes, flags: int = 1) -> bytes:
    return sealed(b"APIC", le(0xFEE00000, 4) + le(flags, 4) + b"".join(entries))


def entry(kind: int, body: bytes) -> bytes:
    return bytes((kind, 2 + len(body))) + body


def mcfg(*windows: tuple[int, int, int, int]) -> bytes:
    body = b"".join(le(base, 8) + le(segment, 2) + bytes((a, b)) + bytes(4) for base, segment, a, b in windows)
    return sealed(b"MCFG", bytes(8) + body)


def viot(*nodes: bytes) -> bytes:
    return sealed(b"VIOT", le(len(nodes), 2) + le(48, 2) + bytes(8) + b"".join(nodes))


def viot_node(kind: int, body: bytes) -> bytes:
    return bytes((kind, 0)) + le(4 + len(body), 2) + body


def iort(*nodes: bytes) -> bytes:
    return sealed(b"IORT", le(len(nodes), 4) + le(48, 4) + bytes(4) + b"".join(nodes))


def iort_node(
    kind: int, body: bytes, *mappings: tuple[int, int, int, int, int], revision: int = 1, behind: bytes = b""
) -> bytes:
    """A node with ``behind`` after its own fields; its mappings (input, count, output, reference, flags) come last."""
    at = 16 + len(body) + len(behind)
    size = at + 20 * len(mappings)
    head = bytes((kind,)) + le(size, 2) + bytes((revision,)) + le(7, 4)
    head += le(len(mappings), 4) + le(at if mappings else 0, 4)
    return head + body + behind + b"".join(le(value, 4) for mapping in mappings for value in mapping)
