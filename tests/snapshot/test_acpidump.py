import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.snapshot.acpidump import is_acpidump, read_acpi
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.table import sealed
from snapshot.snapdata import needs_shared, shared, steady

DMAR, FIRST, SECOND = sealed(b"DMAR", bytes(20)), sealed(b"SSDT", b"one"), sealed(b"SSDT", b"A0 B1 C2")


def dumped(*tables: bytes) -> str:
    return "\n".join(f"{table[:4].decode()} @ 0x0000000000000000\n{rows(table)}" for table in tables)


def rows(table: bytes) -> str:
    found = ((at, table[at : at + 16]) for at in range(0, len(table), 16))
    return "".join(f"    {at:04X}: {row.hex(' ').upper():<48} {printable(row)}\n" for at, row in found)


def printable(row: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)


def damaged(text: str, how: str) -> str:
    lines = text.split("\n")
    return {
        "crlf": "\r\n".join(lines),
        "quoted": "\n".join(f"> {line}" for line in lines),
        "quoted twice": "\n".join(f">> {line}" for line in lines),
        "no indentation": "\n".join(line.strip() for line in lines),
        "tabs": "\n".join(line.replace("    ", "\t") for line in lines),
        "one blank": "\n".join(" ".join(line.split()) for line in lines),
        "words around": f"Hi,\nhere is it:\n{text}\nthanks\n-- \nme @ home\n",
        "no words": "\n".join(line[:57] for line in lines),
    }[how]


WAYS = ["crlf", "quoted", "quoted twice", "no indentation", "tabs", "one blank", "words around", "no words"]


@pytest.mark.parametrize("how", WAYS)
def test_tables_out_of_damaged_text(how: str) -> None:
    text = damaged(dumped(DMAR, FIRST, SECOND), how)
    assert is_acpidump(text)
    found = read_acpi(text.encode(), "mail")
    assert found.tables == {"DMAR": (DMAR,), "SSDT": (FIRST, SECOND)}
    assert found.notes == ()


def test_raw_tables_one_after_another() -> None:
    found = read_acpi(FIRST + DMAR + FIRST + SECOND + b"rest", "all.dat")
    assert found.tables == {"SSDT": (FIRST, SECOND), "DMAR": (DMAR,)}
    assert found.first("SSDT") == FIRST
    assert found.first("IVRS") is None
    assert found.notes == ("offset 0xb2: no table; 4 bytes from there on are not read",)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (dumped(DMAR)[:-80], "line 1: DMAR is left out: 48 bytes are there, it says 56"),
        (
            dumped(DMAR).replace("    0010", "    0011"),
            "line 1: DMAR is left out: its line for offset 0x11 comes after 16",
        ),
        (dumped(DMAR).replace("DMAR @", "IVRS @"), "line 1: IVRS is left out: its bytes do not begin with its name"),
    ],
)
def test_a_table_that_is_not_whole_is_left_out(text: str, note: str) -> None:
    found = read_acpi((text + "\n" + dumped(FIRST)).encode(), "t")
    assert list(found.tables) == ["SSDT"]
    assert found.notes[0].startswith(note)
    with pytest.raises(BadInput, match="a whole ACPI table; line 1: "):
        read_acpi(text.encode(), "t")


def test_a_listing_is_told_from_a_table() -> None:
    listing = "/*\n * Intel ACPI Component Architecture\n * AML/ASL+ Disassembler version 20250404\n"
    assert not is_acpidump(listing)
    with pytest.raises(BadInput, match="a listing made by iasl -d: give the file that it was made from"):
        read_acpi(listing.encode(), "dmar.dsl")


@pytest.mark.parametrize("data", [b"", b"DMAR", b"DMAR\xff\xff\0\0" + bytes(60), b"\0" * 100, b"user @ host\n"])
def test_what_is_no_table_is_bad_input(data: bytes) -> None:
    with pytest.raises(BadInput, match="raw ACPI tables"):
        read_acpi(data, "t")


@steady
@given(st.binary(max_size=80), st.sampled_from(WAYS))
def test_whatever_is_in_a_table_comes_back(body: bytes, how: str) -> None:
    table = sealed(b"DMAR", body)
    assert read_acpi(damaged(dumped(table), how).encode(), "t").tables == {"DMAR": (table,)}


@needs_shared
def test_every_real_dump() -> None:
    dumps = shared("acpi/linuxhw/*.acpidump.txt")[:40]
    assert len(dumps) == 40
    for path in dumps:
        found = read_acpi(path.read_bytes(), str(path))
        assert "APIC" in found.tables
        assert found.notes == ()
