from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.capabilities.decode import ALL, EXTENDED, Decoded, decode, table_size
from quiesce.snapshot.capabilities.field import Capability
from quiesce.snapshot.capabilities.header import HEADERS
from quiesce.snapshot.description import FunctionDescription
from quiesce.snapshot.text import read_text

BDF = Bdf.parse("00:01.0")
MACHINE = """machine small
00:01.0 root-port bus=01 acs slot hotplug
01:00.0 igb sriov=8 ats
"""


def described(address: str) -> FunctionDescription:
    found = read_text(MACHINE, "small").function(Bdf.parse(address))
    assert found is not None
    return found


def with_known(item: FunctionDescription, known: bytes) -> FunctionDescription:
    return FunctionDescription(item.bdf, item.config, attributes=item.attributes, known=known)


def kinds() -> list[Capability]:
    variants = [other for item in ALL for _, other in item.variants]
    return [*HEADERS.values(), *ALL, *variants]


def values(decoded: Decoded) -> list[tuple[str, int, str, int | None]]:
    return [
        (part.capability.name, found.at, value.field.name, value.value)
        for part in (decoded.header, *decoded.capabilities)
        for found in part.registers
        for value in found.fields
    ]


def test_a_root_port() -> None:
    decoded = decode(described("00:01.0"))
    assert decoded.header.capability.name == "Type 1 header"
    assert decoded.header.value("Bus Numbers", "Secondary Bus Number") == 1
    express = decoded.find(r.PCI_CAP_ID_EXP)
    acs = decoded.find(r.PCI_EXT_CAP_ID_ACS, extended=True)
    assert express is not None
    assert acs is not None
    assert express.value("PCI Express Capabilities", "Device/Port Type") == r.PCI_EXP_TYPE_ROOT_PORT
    assert express.value("Slot Capabilities", "Hot-Plug Capable") == 1
    assert acs.value("ACS Capability", "ACS Source Validation") == 1
    assert acs.value("ACS Capability", "ACS P2P Egress Control") == 0
    assert (decoded.complete, decoded.extended_complete) == (True, True)


def test_registers_that_are_not_there_are_not_shown() -> None:
    express = decode(described("01:00.0")).find(r.PCI_CAP_ID_EXP)
    assert express is not None
    with pytest.raises(KeyError):
        express.value("Slot Capabilities", "Hot-Plug Capable")


def test_an_unknown_head_pointer_leaves_the_list_open() -> None:
    item = described("01:00.0")
    known = bytearray(b"\xff" * len(item.config))
    known[r.PCI_CAPABILITY_LIST] = 0
    decoded = decode(with_known(item, bytes(known)))
    assert decoded.capabilities == ()
    assert (decoded.complete, decoded.extended_complete) == (False, False)


def test_an_unknown_bit_shows_as_a_question_mark() -> None:
    item = described("00:01.0")
    acs = decode(item).find(r.PCI_EXT_CAP_ID_ACS, extended=True)
    assert acs is not None
    known = bytearray(b"\xff" * len(item.config))
    known[acs.offset + r.PCI_ACS_CTRL] = 0xFF & ~r.PCI_ACS_RR
    shown = decode(with_known(item, bytes(known))).find(r.PCI_EXT_CAP_ID_ACS, extended=True)
    assert shown is not None
    control = next(found for found in shown.registers if found.register.name == "ACS Control")
    assert {value.field.name: value.text for value in control.fields if value.value is None} == {
        "ACS P2P Request Redirect Enable": "?"
    }


def test_a_short_dump_leaves_extended_capabilities_open() -> None:
    item = described("01:00.0")
    decoded = decode(FunctionDescription(item.bdf, item.config[:256]))
    assert decoded.complete
    assert not decoded.extended_complete


def test_a_loop_ends() -> None:
    config = bytearray(256)
    config[r.PCI_STATUS] = r.PCI_STATUS_CAP_LIST
    config[r.PCI_CAPABILITY_LIST], config[0x40], config[0x41] = 0x40, r.PCI_CAP_ID_VPD, 0x40
    decoded = decode(FunctionDescription(BDF, bytes(config)))
    assert [part.capability.short for part in decoded.capabilities] == ["VPD"]
    assert not decoded.complete


configs = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda head, cap, rest: head[:0x34].ljust(0x34, b"\x10") + b"\x40" + bytes(11) + bytes([cap]) + rest,
        st.binary(max_size=0x34),
        st.integers(0, 0x16),
        st.binary(max_size=4000),
    ),
    st.builds(
        lambda cap, rest: _extended(cap, rest), st.sampled_from(sorted(EXTENDED)), st.binary(min_size=16, max_size=600)
    ),
)


def _extended(cap_id: int, rest: bytes) -> bytes:
    config = bytearray(0x100)
    config[r.PCI_STATUS], config[r.PCI_CAPABILITY_LIST], config[0x40] = 0x10, 0x40, r.PCI_CAP_ID_EXP
    return bytes(config) + (cap_id | 1 << 16).to_bytes(4, "little") + rest


@settings(max_examples=300)
@given(configs, st.binary(max_size=600))
def test_no_bytes_make_it_raise(config: bytes, known: bytes) -> None:
    plain = decode(FunctionDescription(BDF, config))
    assert all(value is not None for *_, value in values(plain))
    decode(FunctionDescription(BDF, config, known=known.ljust(len(config), b"\0")[: len(config)]))


@settings(max_examples=200)
@given(configs, st.data())
def test_what_is_unknown_is_never_shown(config: bytes, data: st.DataObject) -> None:
    """Fields keep their value whatever the unknown bits are."""
    known = data.draw(st.binary(min_size=len(config), max_size=len(config)))
    other = data.draw(st.binary(min_size=len(config), max_size=len(config)))
    mixed = bytes(a & k | b & ~k & 0xFF for a, b, k in zip(config, other, known, strict=True))
    one, two = (decode(FunctionDescription(BDF, each, known=known)) for each in (config, mixed))
    assert values(one) == values(two)
    for part in (one.header, *one.capabilities):
        for found in part.registers:
            bits = int.from_bytes(known[found.at : found.at + found.register.size], "little")
            for value in found.fields:
                assert (value.value is not None) == (bits & value.field.mask == value.field.mask)


def test_the_tables_are_sound() -> None:
    for kind in kinds():
        for register in kind.registers:
            assert register.size > 0
            for item in register.fields:
                assert 0 < item.mask < 1 << 8 * register.size, (kind.name, register.name, item.name)
            for one, two in combinations(register.fields, 2):
                assert one.mask & two.mask == 0, (kind.name, register.name, one.name, two.name)
                assert one.name != two.name, (kind.name, register.name, one.name)


def test_every_value_has_words() -> None:
    for kind in kinds():
        for register in kind.registers:
            for item in register.fields:
                for value in {0, 1, item.ones, item.ones >> 1 or 1}:
                    assert item.words(value & item.ones)


def test_the_size_of_the_tables() -> None:
    assert table_size().fields > 1000
    assert len({(item.cap_id, item.extended) for item in ALL}) == len(ALL)
