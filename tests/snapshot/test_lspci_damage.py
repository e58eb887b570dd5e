"""Real listings, damaged as mail, forums and hands do it."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.lspci import read_lspci
from snapshot.damage import HARMLESS
from snapshot.snapdata import needs_shared, shared, steady

PORT = """\
00:01.0 PCI bridge: Intel Corporation Xeon E7 v3/Core i7 PCI Express Root Port 1 (rev 02) (prog-if 00 [Normal decode])
	Control: I/O+ Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+
	Status: Cap+ 66MHz- UDF- FastB2B- ParErr- DEVSEL=medium >TAbort- <TAbort- <MAbort- >SERR- <PERR- INTx-
	Interrupt: pin B routed to IRQ 25
	IOMMU group: 1
	Bus: primary=00, secondary=01, subordinate=03, sec-latency=0
	Capabilities: [58] Express (v2) Root Port (Slot+), MSI 00
		DevCap:	MaxPayload 128 bytes, PhantFunc 0
			ExtTag+ RBE+
		SltCtl:	Enable: AttnBtn- PwrFlt- MRL- PresDet+ CmdCplt- HPIrq+ LinkChg-
			Control: AttnInd Unknown, PwrInd Unknown, Power+ Interlock-
		SltSta:	Status: AttnBtn- PowerFlt- MRL- CmdCplt- PresDet+ Interlock-
			Changed: MRL- PresDet- LinkState-
	Capabilities: [190 v1] Access Control Services
		ACSCap:	SrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans+
		ACSCtl:	SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-
	Kernel driver in use: pcieport

02:00.0 RAID bus controller: Broadcom / LSI MegaRAID SAS 2208 [Thunderbolt] with quite a long name that goes on (rev 05)
	Flags: bus master, fast devsel, latency 0, IRQ 26, NUMA node 0, IOMMU group 2
	Capabilities: [50] Power Management version 3
	Capabilities: [d0] Vital Product Data
	Kernel modules: one_module, another_module, a_third_module, a_fourth_module, a_fifth_module

"""


def facts(found: MachineDescription) -> object:
    return (
        {item.bdf: (item.config, item.known, dict(item.attributes)) for item in found.functions},
        found.recorded_groups,
        found.recorded_ungrouped,
    )


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_loses_nothing_changes_nothing(kind: str) -> None:
    assert facts(read_lspci(HARMLESS[kind](PORT), "damaged")) == facts(read_lspci(PORT, "clean"))


def test_the_listing_is_long_enough_to_be_wrapped() -> None:
    found = read_lspci(PORT, "clean")
    assert [len(item.config) for item in found.functions] == [4096, 256]
    assert found.recorded_groups == (("0000:00:01.0",), ("0000:02:00.0",))
    assert HARMLESS["wrapped-72"](PORT).count("\n") > PORT.count("\n") + 5


def with_all_bits() -> list[Path]:
    """Return the listings of machines of which every capability bit is known."""
    found = []
    for truth in shared("machines/*/truth.json"):
        if json.loads(truth.read_text())["quality"].startswith("capability bits"):
            found += sorted(truth.parent.glob("lspci*"))
    return found


def clean(path: Path) -> str:
    return path.read_text(errors="replace").rstrip("\n") + "\n\n"


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize("path", with_all_bits(), ids=lambda path: path.parent.name)
def test_real_listings_survive_what_loses_nothing(path: Path) -> None:
    text = clean(path)
    expected = facts(read_lspci(text, "clean"))
    differing = [kind for kind, damage in HARMLESS.items() if facts(read_lspci(damage(text), kind)) != expected]
    assert differing == []


# -- damage that does lose something --------------------------------------------------------------------------------


def dropped(text: str, seed: int) -> str:
    chosen = random.Random(seed)
    return "\n".join(line for line in text.split("\n") if chosen.random() > 0.1)


def mangled(text: str, seed: int) -> str:
    chosen = random.Random(seed)
    found = list(text)
    for _ in range(1 + len(found) // 200):
        found[chosen.randrange(len(found))] = chosen.choice("\n\t :.[]()0f+-><&;=|\\/\u00a0\u2013\ufffd'\"")
    return "".join(found)


def shuffled(text: str, seed: int) -> str:
    lines = text.split("\n")
    random.Random(seed).shuffle(lines)
    return "\n".join(lines)


LOSSY = {
    "cut": lambda text, seed: text[: seed * 7919 % (len(text) + 1)],
    "cut-lines": lambda text, seed: "\n".join(line[: 20 + seed % 60] for line in text.split("\n")),
    "dropped": dropped,
    "mangled": mangled,
    "shuffled": shuffled,
    "one-line": lambda text, seed: " ".join(text.split()),
    "doubled": lambda text, seed: text + text,
}


def read_or_refuse(text: str) -> MachineDescription | None:
    try:
        return read_lspci(text, "damaged")
    except BadInput:
        return None


@steady
@given(st.sampled_from(sorted(LOSSY)), st.sampled_from(sorted(HARMLESS)), st.integers(0, 1 << 30))
def test_no_damage_makes_reading_fail_otherwise(first: str, second: str, seed: int) -> None:
    read_or_refuse(HARMLESS[second](LOSSY[first](PORT, seed)))


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize(
    "path",
    shared("machines/*/lspci*", "machines/*/*.md", "machines/*/iommu*.txt", "machines/*/tree.txt", "hexdumps/*.txt"),
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_real_listings_read_whatever_happened_to_them(path: Path) -> None:
    text = path.read_text(errors="replace")[:60_000]
    assert read_or_refuse(text) is not None
    for seed in range(3):
        for damage in LOSSY.values():
            read_or_refuse(damage(text, seed))


@steady
@given(st.text(st.sampled_from("0123456789abcdef:. \n\t[]-+|\\>IOMMUgroup/Capabilities\"'"), max_size=400))
def test_no_text_makes_reading_fail_otherwise(text: str) -> None:
    read_or_refuse(text)
    read_or_refuse(PORT + text + PORT)


@pytest.mark.parametrize(
    "text",
    [
        ":00.0" * 400_000,
        "abcdefg\n\n" * 200_000,
        "00:00.0\n" * 200_000,
        ">" * 2_000_000,
        "/sys/kernel/iommu_groups/1/devices/0000:00:00.0 -> " + "/0000:00:00.0" * 150_000,
        "-[0000:00]-" + "00.0-[01]-" * 200_000,
        "00:00.0 Host bridge: x\n" + "\tCapabilities: [40] Express (v2) Root Port\n" * 50_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_megabytes_of_anything_end(text: str) -> None:
    read_or_refuse(text)


def test_a_listing_that_was_cut_off_does_not_say_what_is_missing_behind() -> None:
    whole = PORT[: PORT.index("\tKernel driver")]
    known, cut = (read_lspci(text, "text").functions[0].known for text in (whole, whole[:-8]))
    assert known is not None
    assert cut is not None
    assert (known[0x59], cut[0x59]) == (0xFF, 0xFF)
    assert (known[0x193], cut[0x193]) == (0xFF, 0)
    known, cut = (
        read_lspci(text, "text").functions[1].known for text in (PORT[:-2].rpartition("\n")[0] + "\n", PORT[:-99])
    )
    assert known is not None
    assert cut is not None
    assert (known[0xD1], cut[0xD1]) == (0xFF, 0)
