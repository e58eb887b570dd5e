"""What a snapshot leaves open, and every outcome that follows (groups/possible.py, silicon.py, units.py)."""

from __future__ import annotations

from dataclasses import replace

from quiesce.groups.predict import Prediction, predict
from quiesce.kernel.changes import kernel
from quiesce.kernel.parameters import parse_parameters
from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.description import FunctionDescription, MachineDescription
from quiesce.snapshot.read import read_text

PORTS = """
machine ports
00:00.0 host-bridge
00:01.0 root-port bus=01 acs
00:1c.0 root-port bus=02
00:1c.1 root-port bus=03
01:00.0 endpoint
02:00.0 nvme multifunction
02:00.1 nvme
03:00.0 endpoint
iommu intel
"""


def edited(description: MachineDescription, **changes: FunctionDescription) -> MachineDescription:
    items = tuple(changes.get(str(item.bdf), item) for item in description.functions)
    return replace(description, functions=items)


def short(description: MachineDescription, size: int, *which: str) -> MachineDescription:
    """Cut config space, of some functions or of all."""
    items = {str(item.bdf): item for item in description.functions}
    cut = {bdf: replace(item, config=item.config[:size]) for bdf, item in items.items() if not which or bdf in which}
    return edited(description, **cut)


def only_ids(description: MachineDescription) -> MachineDescription:
    """Keep what a bare listing shows: ids, class, header type."""
    mask = bytearray(64)
    mask[0:4] = mask[8:12] = b"\xff" * 4
    mask[r.PCI_HEADER_TYPE] = r.PCI_HEADER_TYPE_MASK
    mask[r.PCI_SECONDARY_BUS] = 0xFF
    cut = {str(item.bdf): replace(item, config=item.config[:64], known=bytes(mask)) for item in description.functions}
    return edited(description, **cut)


def possible(found: Prediction, *group: str) -> bool:
    wanted = {f"0000:{bdf}" for bdf in group}
    groups = [*found.groups, *(group for item in found.undecided for groups in item.alternatives for group in groups)]
    return any(set(group) == wanted for group in groups)


def on(description: MachineDescription, *words: str) -> Prediction:
    return predict(description, kernel("v6.12"), parse_parameters(words))


MACHINE = read_text(PORTS, "ports")


class TestWhatIsOpen:
    def test_nothing_in_a_full_dump(self) -> None:
        assert on(MACHINE).undecided == ()

    def test_256_bytes_leave_acs_open_where_it_matters(self) -> None:
        found = on(short(MACHINE, 256))
        assert ("0000:00:00.0",) in found.groups
        open_ones = {bdf for item in found.undecided for bdf in item.functions}
        assert open_ones == {str(item.bdf) for item in MACHINE.functions} - {"0000:00:00.0"}
        assert "0000:00:1c.0 has ACS" in found.undecided[1].why

    def test_every_mixture_is_among_the_alternatives(self) -> None:
        found = on(short(MACHINE, 256))
        assert possible(found, "01:00.0")
        assert possible(found, "00:01.0", "01:00.0")
        assert possible(found, "02:00.0")
        assert possible(found, "02:00.0", "02:00.1")
        assert possible(found, "00:1c.0", "02:00.0", "02:00.1")
        assert possible(found, "00:1c.0", "00:1c.1", "02:00.0", "02:00.1", "03:00.0")

    def test_what_cannot_be_is_not_among_them(self) -> None:
        found = on(short(MACHINE, 256))
        assert not possible(found, "00:01.0", "00:1c.0")
        assert not possible(found, "00:1c.0", "02:00.0")
        assert not possible(found, "03:00.0", "02:00.0")

    def test_only_the_port_in_question(self) -> None:
        found = on(short(MACHINE, 256, "0000:00:01.0"))
        (item,) = found.undecided
        assert set(item.alternatives) == {
            (("0000:00:01.0",), ("0000:01:00.0",)),
            (("0000:00:01.0", "0000:01:00.0"),),
        }

    def test_each_alternative_says_what_it_takes(self) -> None:
        (item,) = on(short(MACHINE, 256, "0000:00:01.0")).undecided
        assert {words for conditions in item.conditions for words in conditions} == {
            "00:01.0 is with ACS",
            "00:01.0 is without ACS",
        }

    def test_a_listing_leaves_the_kind_open_too(self) -> None:
        found = on(only_ids(MACHINE))
        assert "PCI Express" in found.undecided[0].why
        assert possible(found, "00:01.0", "01:00.0")
        assert possible(found, "01:00.0")

    def test_the_truth_is_always_possible(self) -> None:
        truth = on(MACHINE)
        for description in (short(MACHINE, 256), short(MACHINE, 64), only_ids(MACHINE)):
            assert all(possible(on(description), *(bdf[5:] for bdf in group)) for group in truth.groups)

    def test_a_known_quirk_settles_what_the_listing_leaves_open(self) -> None:
        """The kernel knows the port by its ids, whatever its capabilities are."""
        quirked = read_text(PORTS.replace("00:1c.0 root-port", "00:1c.0 root-port id=17cb:0400"), "ports")
        found = on(short(quirked, 256))
        assert ("0000:00:1c.0",) in found.groups


class TestPlaces:
    def test_a_bus_that_may_hang_anywhere(self) -> None:
        mask = bytearray(b"\xff" * 64)
        mask[r.PCI_SECONDARY_BUS] = 0
        ports = {
            str(item.bdf): replace(item, config=item.config[:64] + item.config[64:], known=bytes(mask) + b"\xff" * 4032)
            for item in MACHINE.functions
            if item.bdf.device == 0x1C
        }
        found = on(edited(MACHINE, **ports))
        (item,) = found.undecided
        assert "behind which bridge bus 02" in item.why
        assert possible(found, "00:1c.0", "00:1c.1", "02:00.0", "02:00.1", "03:00.0")
        assert ("0000:01:00.0",) in found.groups
