from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.combine import combined
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.dmesg import read_dmesg
from quiesce.snapshot.lspci import read_lspci
from quiesce.snapshot.overlay import filled, weight
from snapshot.snapdata import header, steady

AT = Bdf(0, 0, 0x1C, 0)
PORT = "pci 0000:00:1c.0: [8086:a110] type 01 class 0x060400 PCIe Root Port\n"
BUS = "pci 0000:00:1c.0: PCI bridge to [bus 03-05]\n"


def log(text: str = PORT + BUS, source: str = "log") -> MachineDescription:
    return read_dmesg(text, source)


def listing(text: str, source: str = "listing") -> MachineDescription:
    return read_lspci(text, source)


def one(config: bytes, known: bytes | None = None, source: str = "x", **more: object) -> MachineDescription:
    item = FunctionDescription(AT, config, known=known)
    return replace(MachineDescription(name="", functions=(item,), source=source), **more)  # type: ignore[arg-type]


def type_of(item: FunctionDescription) -> int | None:
    at = item.config[r.PCI_CAPABILITY_LIST]
    if item.known is not None and not item.known[at + r.PCI_EXP_FLAGS] & 0xF0:
        return None
    return item.config[at + r.PCI_EXP_FLAGS] >> 4


def test_a_listing_without_capabilities_gets_those_that_the_log_proves() -> None:
    found = combined([listing("00:1c.0 PCI bridge [0604]: Intel [8086:a110] (rev f1)\n"), log()], "m")
    (item,) = found.functions
    assert (type_of(item), item.config[r.PCI_REVISION_ID]) == (4, 0xF1)
    assert (item.config[r.PCI_SECONDARY_BUS], item.config[r.PCI_SUBORDINATE_BUS]) == (3, 5)


def test_capabilities_lie_where_the_source_that_knows_more_has_them() -> None:
    text = (
        "00:1c.0 PCI bridge [0604]: Intel [8086:a110] (prog-if 00 [Normal decode])\n"
        "\tBus: primary=00, secondary=03, subordinate=05, sec-latency=0\n"
        "\tCapabilities: [90] Subsystem: Dell [1028:06b9]\n"
        "\tCapabilities: [80] MSI: Enable+ Count=1/1 Maskable- 64bit-\n"
    )
    alone = listing(text).functions[0]
    (item,) = combined([log(), listing(text)], "m").functions
    assert item.config[0x40:0x44] == bytes(4)
    assert item.config[r.PCI_CAPABILITY_LIST] == alone.config[r.PCI_CAPABILITY_LIST]


def test_full_config_space_is_left_as_it_is() -> None:
    data = header(0x8086, 0xA110, 0x060400, kind=1, size=4096)
    (item,) = combined([log(), one(data)], "m").functions
    assert (item.config, item.known) == (data, None)


def test_a_short_config_space_gets_the_list_of_the_log() -> None:
    data = bytearray(header(0x8086, 0xA110, 0x060400, kind=1))
    data[r.PCI_SECONDARY_BUS : r.PCI_SUBORDINATE_BUS + 1] = b"\x03\x05"
    data[r.PCI_STATUS] |= r.PCI_STATUS_CAP_LIST
    data[r.PCI_CAPABILITY_LIST] = 0x80
    (item,) = combined([log(), one(bytes(data))], "m").functions
    assert type_of(item) == 4
    data[r.PCI_STATUS] = 0
    (item,) = combined([log(), one(bytes(data))], "m").functions
    assert len(item.config) == 64


def test_different_ids_are_said_and_nothing_is_filled() -> None:
    other = log(PORT.replace("a110", "a111"))
    found = combined([one(header(0x8086, 0xA110, 0x060400, kind=1), source="a"), other], "m")
    assert any(note.startswith("0000:00:1c.0: ids differ between") for note in found.notes)


def test_different_bus_numbers_are_said_once() -> None:
    moved = log(PORT + BUS.replace("03-05", "04-05"), "later")
    found = combined([log(), moved], "m")
    (said,) = [note for note in found.notes if "bus numbers" in note]
    assert said == "0000:00:1c.0: bus numbers differ between log and later; the first counts"


def test_two_kernels_tables_and_groups_are_said() -> None:
    first = one(header(), source="a", kernel="6.1", recorded_groups=((str(AT),),), dmar=b"1")
    second = one(header(), source="b", kernel="6.2", recorded_groups=((str(AT),),), dmar=b"2")
    found = combined([first, second], "m")
    assert (found.kernel, found.dmar) == ("6.1", b"1")
    assert sum("differ" in note or "kernel release" in note for note in found.notes) == 2


def test_groups_that_differ_are_said() -> None:
    other = Bdf(0, 0, 0x1D, 0)
    both = tuple(FunctionDescription(bdf, header()) for bdf in (AT, other))
    apart = MachineDescription("", both, source="a", recorded_groups=((str(AT),), (str(other),)))
    together = replace(apart, source="b", recorded_groups=((str(AT), str(other)),))
    found = combined([apart, together], "m")
    assert found.recorded_groups == apart.recorded_groups
    assert "the groups of a and b differ; the first count" in found.notes
    assert not any("differ" in note for note in combined([apart, replace(apart, source="b")], "m").notes)


def test_tables_of_all_sources_are_there_once() -> None:
    found = combined([one(header(), tables={"APIC": (b"a",)}), one(header(), tables={"APIC": (b"a", b"b")})], "m")
    assert found.tables == {"APIC": (b"a", b"b")}


def test_a_note_that_several_sources_have_is_said_once() -> None:
    found = combined([one(header(), source=name, notes=("odd",)) for name in ("a", "b")], "m")
    assert found.notes == ("a, b: odd",)


def test_several_functions_show_in_one_source_what_another_cannot_tell() -> None:
    rest = log("pci 0000:00:1c.4: [8086:a114] type 01 class 0x060400\n", "rest")
    first, _ = combined([log(), rest], "m").functions
    assert first.known is not None
    assert first.known[r.PCI_HEADER_TYPE] & first.config[r.PCI_HEADER_TYPE] & r.PCI_HEADER_TYPE_MFD


def test_what_only_the_log_shows_is_past_where_there_is_a_listing() -> None:
    many = [f"pci 0000:00:{device:02x}.0: [8086:a110] type 00 class 0x020000\n" for device in range(5)]
    extra = "pci 0000:00:00.1: [8086:a110] type 00 class 0x020000\n"
    names = "".join(f"00:{device:02x}.0 Ethernet controller [0200]: Intel [8086:a110]\n" for device in range(5))
    found = combined([listing(names), log("".join([*many, extra]))], "m")
    gone = [str(item.bdf) for item in found.functions if not item.present]
    assert gone == ["0000:00:00.1"]
    assert found.functions[0].known is not None
    assert not found.functions[0].known[r.PCI_HEADER_TYPE] & r.PCI_HEADER_TYPE_MFD
    few = combined([listing("00:00.0 Ethernet controller [0200]: Intel [8086:a110]\n"), log("".join(many))], "m")
    assert all(item.present for item in few.functions)


@steady
@given(st.binary(min_size=256, max_size=256), st.binary(min_size=256, max_size=256), st.booleans())
def test_filling_never_changes_a_known_bit(config: bytes, known: bytes, logged: bool) -> None:
    base = FunctionDescription(AT, config, known=known)
    other = log().functions[0] if logged else FunctionDescription(AT, bytes(reversed(config)), known=config)
    found = filled(base, other)
    kept = found.known if found.known is not None else b"\xff" * len(found.config)
    start = [at for at in range(256) if at != r.PCI_CAPABILITY_LIST and (at < 0x40 or any(known[0x40:]))]
    assert all((found.config[at] ^ config[at]) & known[at] == 0 for at in start)
    assert all(kept[at] & known[at] == known[at] for at in start)
    assert weight(found) >= 0
