import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.machine.topology import capability_list, extended_capability_list
from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.read import read_machine, read_text
from snapshot.snapdata import SHARED, needs_shared, shared, steady

PORT = """\
00:09.0 PCI bridge [0604]: Maker Port 4 [1002:5a1c] (rev 02) (prog-if 00 [Normal decode])
	Control: I/O+ Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+
	Status: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=medium >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
	Interrupt: pin B routed to IRQ 25
	Bus: primary=00, secondary=01, subordinate=03, sec-latency=0
	BridgeCtl: Parity- SERR+ NoISA- VGA- VGA16- MAbort- >Reset- FastB2B-
	Capabilities: [50] Power Management version 3
		Status: D3 NoSoftRst+ PME-Enable- DSel=0 DScale=0 PME-
	Capabilities: [58] Express (v2) Root Port (Slot+), MSI 00
		DevCap:	MaxPayload 128 bytes, PhantFunc 0
			ExtTag+ RBE+
		LnkCap:	Port #3, Speed 5GT/s, Width x1
			ClockPM- Surprise- LLActRep+ BwNot+
		SltCap:	AttnBtn- PwrCtrl+ MRL- AttnInd- PwrInd- HotPlug+ Surprise+
		SltCtl:	Enable: AttnBtn- PwrFlt- MRL- PresDet+ CmdCplt- HPIrq+ LinkChg-
			Control: AttnInd Unknown, PwrInd Unknown, Power+ Interlock-
		DevCap2: Completion Timeout: Range ABCD, ARIFwd+
		DevCtl2: Completion Timeout: 50us to 50ms, ARIFwd-
	Capabilities: [a0] MSI: Enable+ Count=2/8 Maskable+ 64bit-
		Address: fee0100c  Data: 4181
	Capabilities: [190 v1] Access Control Services
		ACSCap:	SrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans+
		ACSCtl:	SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-
"""


def rebuilt(text: str) -> tuple[bytes, tuple[str, ...]]:
    found = read_text(text, "listing")
    return found.functions[0].config, found.notes


def number(config: bytes, offset: int, size: int = 2) -> int:
    return int.from_bytes(config[offset : offset + size], "little")


def test_header_of_a_bridge() -> None:
    config, _ = rebuilt(PORT)
    assert (number(config, 0), number(config, 2), number(config, 8, 4)) == (0x1002, 0x5A1C, 0x06040002)
    assert (number(config, r.PCI_COMMAND), number(config, r.PCI_STATUS)) == (0x0407, 0x0210)
    assert config[0x18:0x1B] == b"\0\1\3"
    assert (config[r.PCI_INTERRUPT_PIN], config[r.PCI_INTERRUPT_LINE], number(config, r.PCI_BRIDGE_CONTROL)) == (
        2,
        25,
        2,
    )


def test_capability_lists() -> None:
    config, _ = rebuilt(PORT)
    assert capability_list(config) == {r.PCI_CAP_ID_PM: 0x50, r.PCI_CAP_ID_EXP: 0x58, r.PCI_CAP_ID_MSI: 0xA0}
    assert extended_capability_list(config) == {0: 0x100, r.PCI_EXT_CAP_ID_ACS: 0x190}


def test_bits_in_capabilities() -> None:
    config, _ = rebuilt(PORT)
    assert number(config, 0x50 + r.PCI_PM_CTRL) == r.D3HOT | r.PCI_PM_CTRL_NO_SOFT_RESET
    assert number(config, 0x58 + r.PCI_EXP_FLAGS) == 0x0142
    assert number(config, 0x58 + r.PCI_EXP_LNKCAP, 4) == r.PCI_EXP_LNKCAP_DLLLARC
    assert number(config, 0x58 + r.PCI_EXP_SLTCAP) == r.PCI_EXP_SLTCAP_PCP | r.PCI_EXP_SLTCAP_HPC | r.PCI_EXP_SLTCAP_HPS
    assert (
        number(config, 0x58 + r.PCI_EXP_SLTCTL) == r.PCI_EXP_SLTCTL_PDCE | r.PCI_EXP_SLTCTL_HPIE | r.PCI_EXP_SLTCTL_PCC
    )
    assert (number(config, 0x58 + r.PCI_EXP_DEVCAP2), number(config, 0x58 + r.PCI_EXP_DEVCTL2)) == (0x20, 0)
    assert number(config, 0xA0 + r.PCI_MSI_FLAGS) == 0x0117
    assert (number(config, 0x194), number(config, 0x196)) == (0x5F, 0x1D)


def test_bars_and_msix_of_an_endpoint() -> None:
    config, _ = rebuilt(
        "01:00.0 Class 0200: 8086:10d3\n"
        "\tRegion 0: Memory at fe000000 (64-bit, prefetchable) [size=1M]\n"
        "\tRegion 2: I/O ports at e000 [size=32]\n"
        "\tCapabilities: [a0] MSI-X: Enable+ Count=5 Masked-\n"
        "\t\tVector table: BAR=3 offset=00002000\n"
    )
    assert (number(config, 0x10, 4), number(config, 0x14, 4), number(config, 0x18, 4)) == (0xFE00000C, 0, 0xE001)
    assert (number(config, 0xA2), number(config, 0xA4, 4)) == (0x8004, 0x2003)


def test_virtual_functions_of_a_physical_one() -> None:
    config, _ = rebuilt(
        "01:00.0 Class 0200: 8086:10c9\n"
        "\tCapabilities: [160 v1] Single Root I/O Virtualization (SR-IOV)\n"
        "\t\tIOVCtl:\tEnable+ Migration- Interrupt- MSE+ ARIHierarchy+\n"
        "\t\tInitial VFs: 8, Total VFs: 8, Number of VFs: 2, Function Dependency Link: 00\n"
        "\t\tVF offset: 384, stride: 2, Device ID: 10ca\n"
    )
    assert (number(config, 0x168), number(config, 0x16E), number(config, 0x170)) == (0x19, 8, 2)
    assert (number(config, 0x174), number(config, 0x176), number(config, 0x17A)) == (384, 2, 0x10CA)


def test_what_is_assumed_is_noted_once() -> None:
    _, notes = rebuilt("00:02.0 SATA controller: Somebody Nice thing\n00:03.0 SATA controller: Somebody Other thing\n")
    assert notes == (
        "all functions: config space rebuilt from decoded text; what the text leaves out is unknown",
        "0000:00:02.0, 0000:00:03.0: the text does not state vendor and device id; quirks that depend on them do not "
        "apply",
        "0000:00:02.0, 0000:00:03.0: the text does not state the interrupt pin; taken to be A",
    )


def test_a_capability_that_is_not_known_by_name_may_be_any() -> None:
    text = "00:02.0 Class 0106: 8086:2922\n\tCapabilities: [40] Sparkle engine\n"
    found = read_text(text, "listing")
    known = found.functions[0].known
    assert known is not None
    assert (known[0x34], known[0x40], known[0x41]) == (0xFF, 0, 0xFF)
    assert "0000:00:02.0: capability at 40: 'Sparkle engine' is not known by name; it may be any" in found.notes


@needs_shared
def test_the_gigabyte_board() -> None:
    found = read_machine(SHARED / "machines" / "gigabyte-990fxa-ud3")
    assert (len(found.functions), found.ivrs is not None, found.dmar) == (27, True, None)
    assert found.recorded_groups is not None
    assert len(found.recorded_groups) == 15
    assert len(found.recorded_ungrouped) == 7
    port = found.function(Bdf.parse("00:09.0"))
    assert port is not None
    assert (number(port.config, 0x194), number(port.config, 0x196)) == (0x5F, 0x1D)
    bridge = found.function(Bdf.parse("00:14.4"))
    assert bridge is not None
    assert (bridge.config[0x18:0x1B], bridge.config[0x0E]) == (b"\0\3\3", 0x81)


HEX = re.compile(r"[0-9a-f]{2,3}: ")
WITH_BOTH = [path for path in shared("machines/*/lspci*xxxx*", "hexdumps/pciutils-tests/*") if "ox16" not in path.name]


def facts(config: bytes) -> dict[str, object]:
    known = capability_list(config)
    found: dict[str, object] = {
        "class": config[8:12],
        "type": config[14] & 0x7F,
        "capabilities": known,
        "bus": config[0x18:0x1B] if config[14] & 0x7F == 1 else b"",
    }
    if r.PCI_CAP_ID_EXP in known:
        found["express"] = number(config, known[r.PCI_CAP_ID_EXP] + r.PCI_EXP_FLAGS) & 0x1FF
    if r.PCI_CAP_ID_MSI in known:
        found["msi"] = number(config, known[r.PCI_CAP_ID_MSI] + r.PCI_MSI_FLAGS) & 0x1FF
    if r.PCI_CAP_ID_MSIX in known:
        found["msix"] = config[known[r.PCI_CAP_ID_MSIX] + 2 :][:10]
    acs = extended_capability_list(config).get(r.PCI_EXT_CAP_ID_ACS)
    if acs:
        found["acs"] = config[acs + 4 : acs + 8]
    return found


@needs_shared
@pytest.mark.parametrize(
    "path", [path for path in WITH_BOTH if path.parent.parent.name == "machines"], ids=lambda p: p.parent.name
)
def test_the_decoded_text_of_a_real_machine_gives_what_its_bytes_say(path: Path) -> None:
    lines = path.read_text(errors="replace").splitlines()
    with_bytes = read_text("\n".join(lines), "bytes")
    from_text = read_text("\n".join(line for line in lines if not HEX.match(line)), "text")
    differing = [
        (str(one.bdf), key, value, facts(other.config).get(key))
        for one, other in zip(with_bytes.functions, from_text.functions, strict=True)
        for key, value in facts(one.config).items()
        if facts(other.config).get(key) != value
    ]
    assert differing == []


@needs_shared
@pytest.mark.parametrize("path", WITH_BOTH, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_no_bit_that_text_tells_differs_from_the_bytes(path: Path) -> None:
    lines = path.read_text(errors="replace").splitlines()
    from_text = read_text("\n".join(line for line in lines if not HEX.match(line.lstrip())) + "\n", "text")
    with_bytes = {item.bdf: item for item in read_text("\n".join(lines), "bytes").functions}
    for item in from_text.functions:
        assert item.known is not None
        real = with_bytes[item.bdf]
        length = min(len(real.config), len(item.config))
        known = bytes(map(int.__and__, item.known, real.known or b"\xff" * length))[:length]
        told = bytes(map(int.__and__, item.config, known))
        assert told == bytes(map(int.__and__, real.config, known)), str(item.bdf)
        assert any(known)


lines_of_lspci = st.one_of(
    st.sampled_from(PORT.splitlines()),
    st.sampled_from(PORT.splitlines()).flatmap(
        lambda line: st.tuples(st.integers(0, len(line)), st.text(max_size=4)).map(
            lambda cut: line[: cut[0]] + cut[1] + line[cut[0] + 1 :]
        )
    ),
    st.text(max_size=30),
)


@steady
@given(st.lists(lines_of_lspci, max_size=30))
def test_no_listing_breaks_the_reader(lines: list[str]) -> None:
    try:
        found = read_text("\n".join(["00:09.0 PCI bridge", *lines]), "listing")
    except BadInput:
        return
    assert isinstance(found, MachineDescription)


@pytest.mark.parametrize(
    ("line", "offset", "size", "value"),
    [
        ("Latency: 64, Cache Line Size: 32 bytes", r.PCI_CACHE_LINE_SIZE, 2, 0x4008),
        ("Subsystem: Maker Board [1458:5001]", r.PCI_SUBSYSTEM_VENDOR_ID, 4, 0x50011458),
        ("Subsystem: Device 1458:5001", r.PCI_SUBSYSTEM_VENDOR_ID, 4, 0x50011458),
        ("Flags: bus master, fast devsel, latency 0, IRQ 17", r.PCI_INTERRUPT_LINE, 2, 0x0111),
        ("Flags: bus master, fast devsel, latency 0", r.PCI_INTERRUPT_LINE, 2, 0),
        ("Flags: bus master, fast devsel, latency 0, IRQ 17", r.PCI_COMMAND, 2, r.PCI_COMMAND_MASTER),
        ("Memory at fe000000 (32-bit, prefetchable) [size=1M]", r.PCI_BASE_ADDRESS_0, 4, 0xFE000008),
        ("Region 5: Memory at fe000000 (64-bit, prefetchable)", r.PCI_BASE_ADDRESS_0 + 20, 4, 0),
        ("Interrupt: pin C routed to IRQ 11", r.PCI_INTERRUPT_LINE, 2, 0x030B),
        ("Interrupt: pin C routed to IRQ 300", r.PCI_INTERRUPT_LINE, 2, 0x0300),
    ],
)
def test_lines_of_the_header(line: str, offset: int, size: int, value: int) -> None:
    config, _ = rebuilt(f"00:02.0 Class 0106: 8086:2922\n\t{line}\n")
    assert number(config, offset, size) == value


def test_two_bars_without_numbers() -> None:
    config, _ = rebuilt(
        "00:02.0 Class 0106: 8086:2922\n\tMemory at fe000000 (64-bit)\n\tI/O ports at e000\n"
        "\tMemory at fd000000 (32-bit)\n"
    )
    assert [number(config, at, 4) for at in (0x10, 0x14, 0x18, 0x1C)] == [0xFE000004, 0, 0xE001, 0xFD000000]


def test_a_cardbus_bridge() -> None:
    config, _ = rebuilt("00:02.0 CardBus bridge [0607]: Maker Thing [104c:ac56]\n\tBus: primary=00, secondary=03\n")
    assert config[r.PCI_HEADER_TYPE] == r.PCI_HEADER_TYPE_CARDBUS


def test_a_port_type_that_is_not_known_is_noted() -> None:
    _, notes = rebuilt("00:02.0 Class 0106: 8086:2922\n\tCapabilities: [40] Express (v2) Spaceport, MSI 00\n")
    assert any("PCI Express type not known" in note for note in notes)


def test_hidden_capabilities_are_noted() -> None:
    _, notes = rebuilt("00:02.0 Class 0106: 8086:2922\n\tCapabilities: <access denied>\n")
    assert "0000:00:02.0: the capabilities were hidden from the user who ran lspci" in notes
