"""Which registers of a function can change, and the values they have after power-on and after the firmware ran.

A dump shows a running machine. What an operating system finds when it starts is derived from it: decoding as in the
dump, bus mastering on bridges only, every message interrupt off, INTx not disabled, D0, no virtual functions, and
none of the ACS controls that the kernel itself sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from quiesce.machine import pci_regs as r
from quiesce.machine.config import Register

_COMMAND_WRITABLE = 0x0547
_ACS_SET_BY_KERNEL = r.PCI_ACS_SV | r.PCI_ACS_RR | r.PCI_ACS_CR | r.PCI_ACS_UF
_HOTPLUG_ENABLES = 0x103F


def registers_of(
    image: bytes,
    capabilities: Mapping[int, int],
    extended: Mapping[int, int],
    *,
    intx_disable: bool = True,
    as_found: bool = False,
    master: bool = False,
) -> tuple[Register, ...]:
    """Return the changeable registers of a function; with ``as_found`` their initial values are those of the dump, with
    ``master`` bus mastering is, because firmware left it on."""
    make = partial(_Maker, image, as_found)
    return (
        *_header(make(0), intx_disable, master),
        *_power(make(capabilities.get(r.PCI_CAP_ID_PM, 0))),
        *_msi(make(capabilities.get(r.PCI_CAP_ID_MSI, 0))),
        *_msix(make(capabilities.get(r.PCI_CAP_ID_MSIX, 0))),
        *_express(make(capabilities.get(r.PCI_CAP_ID_EXP, 0))),
        *_others(make(capabilities.get(r.PCI_CAP_ID_PCIX, 0)), make(capabilities.get(r.PCI_CAP_ID_AF, 0))),
        *_acs(make(extended.get(r.PCI_EXT_CAP_ID_ACS, 0))),
        *_sriov(make(extended.get(r.PCI_EXT_CAP_ID_SRIOV, 0))),
        *_translation(make, extended),
    )


class _Maker:
    """Makes registers relative to one capability."""

    def __init__(self, image: bytes, as_found: bool, base: int) -> None:
        self.image = image
        self.as_found = as_found
        self.base = base

    def value(self, offset: int, size: int) -> int:
        start = self.base + offset
        return int.from_bytes(self.image[start : start + size], "little")

    def __call__(
        self,
        name: str,
        offset: int,
        size: int,
        writable: int,
        *,
        off: int = 0,
        initial: int | None = None,
        reset: int | None = None,
        clears: int = 0,
        derived: int = 0,
        saved: bool = False,
        survives_flr: bool = False,
    ) -> Register:
        """Make a register: ``off`` are bits that firmware leaves clear, unless ``initial`` gives its value; after
        a reset all that can be written is clear, unless ``reset`` says otherwise. ``derived`` bits follow from other
        state, so they are no part of the value.
        """
        found = self.value(offset, size) & ~derived
        if self.as_found:
            initial = found
        elif initial is None:
            initial = found & ~off & ~clears
        after = found & ~writable & ~clears if reset is None else reset
        return Register(
            name, self.base + offset, size, initial, after, writable, clears, saved=saved, survives_flr=survives_flr
        )


def _header(make: _Maker, intx_disable: bool, master: bool) -> Iterator[Register]:
    kind = make.value(r.PCI_HEADER_TYPE, 1) & r.PCI_HEADER_TYPE_MASK
    writable = _COMMAND_WRITABLE if intx_disable else _COMMAND_WRITABLE & ~r.PCI_COMMAND_INTX_DISABLE
    is_bridge = kind == r.PCI_HEADER_TYPE_BRIDGE
    off = r.PCI_COMMAND_INTX_DISABLE | (0 if is_bridge or master else r.PCI_COMMAND_MASTER)
    yield make("COMMAND", r.PCI_COMMAND, 2, writable, off=off, saved=True)
    yield make("STATUS", r.PCI_STATUS, 2, 0, derived=r.PCI_STATUS_INTERRUPT, clears=0xF900)
    yield make("CACHE_LINE_SIZE", r.PCI_CACHE_LINE_SIZE, 1, 0xFF, saved=True)
    yield make("LATENCY_TIMER", r.PCI_LATENCY_TIMER, 1, 0xFF, saved=True)
    yield make("INTERRUPT_LINE", r.PCI_INTERRUPT_LINE, 1, 0xFF, saved=True)
    yield from _base_addresses(make, 2 if is_bridge else 6 if kind == r.PCI_HEADER_TYPE_NORMAL else 0)
    if is_bridge:
        yield from _bridge(make)


def _base_addresses(make: _Maker, count: int) -> Iterator[Register]:
    upper_half = False
    for number in range(count):
        value = make.value(r.PCI_BASE_ADDRESS_0 + 4 * number, 4)
        fixed = 0 if upper_half else 0x3 if value & r.PCI_BASE_ADDRESS_SPACE_IO else 0xF
        implemented = upper_half or value != 0
        writable = 0xFFFFFFFF & ~fixed if implemented else 0
        yield make(f"BASE_ADDRESS_{number}", r.PCI_BASE_ADDRESS_0 + 4 * number, 4, writable, saved=True)
        upper_half = not upper_half and value & 0x7 == 0x4


def _bridge(make: _Maker) -> Iterator[Register]:
    for name, offset in (
        ("PRIMARY_BUS", r.PCI_PRIMARY_BUS),
        ("SECONDARY_BUS", r.PCI_SECONDARY_BUS),
        ("SUBORDINATE_BUS", r.PCI_SUBORDINATE_BUS),
    ):
        yield make(name, offset, 1, 0xFF, saved=True)
    yield make("SEC_STATUS", r.PCI_SEC_STATUS, 2, 0, clears=0xF900)
    yield make("BRIDGE_CONTROL", r.PCI_BRIDGE_CONTROL, 2, 0x0FFF, off=r.PCI_BRIDGE_CTL_BUS_RESET, saved=True)


def _power(make: _Maker) -> Iterator[Register]:
    if make.base:
        writable = r.PCI_PM_CTRL_STATE_MASK | r.PCI_PM_CTRL_PME_ENABLE | r.PCI_PM_CTRL_DATA_SEL_MASK
        off = r.PCI_PM_CTRL_STATE_MASK | r.PCI_PM_CTRL_PME_ENABLE
        yield make("PM_CTRL", r.PCI_PM_CTRL, 2, writable, off=off, clears=r.PCI_PM_CTRL_PME_STATUS)


def _msi(make: _Maker) -> Iterator[Register]:
    if not make.base:
        return
    flags = make.value(r.PCI_MSI_FLAGS, 2)
    wide = bool(flags & r.PCI_MSI_FLAGS_64BIT)
    writable = r.PCI_MSI_FLAGS_ENABLE | r.PCI_MSI_FLAGS_QSIZE
    yield make("MSI_FLAGS", r.PCI_MSI_FLAGS, 2, writable, off=writable)
    yield make("MSI_ADDRESS_LO", r.PCI_MSI_ADDRESS_LO, 4, 0xFFFFFFFC, initial=0, reset=0)
    if wide:
        yield make("MSI_ADDRESS_HI", r.PCI_MSI_ADDRESS_HI, 4, 0xFFFFFFFF, initial=0, reset=0)
    data, mask = (r.PCI_MSI_DATA_64, r.PCI_MSI_MASK_64) if wide else (r.PCI_MSI_DATA_32, r.PCI_MSI_MASK_32)
    yield make("MSI_DATA", data, 2, 0xFFFF, initial=0, reset=0)
    if flags & r.PCI_MSI_FLAGS_MASKBIT:
        yield make("MSI_MASK", mask, 4, 0xFFFFFFFF, initial=0, reset=0)


def _msix(make: _Maker) -> Iterator[Register]:
    if make.base:
        writable = r.PCI_MSIX_FLAGS_ENABLE | r.PCI_MSIX_FLAGS_MASKALL
        yield make("MSIX_FLAGS", r.PCI_MSIX_FLAGS, 2, writable, off=writable)


def _express(make: _Maker) -> Iterator[Register]:
    if not make.base:
        return
    version = make.value(r.PCI_EXP_FLAGS, 2) & r.PCI_EXP_FLAGS_VERS
    kind = (make.value(r.PCI_EXP_FLAGS, 2) & r.PCI_EXP_FLAGS_TYPE) >> 4
    yield make("EXP_DEVCTL", r.PCI_EXP_DEVCTL, 2, 0x7FFF, derived=r.PCI_EXP_DEVCTL_BCR_FLR, reset=0x2810, saved=True)
    yield make("EXP_DEVSTA", r.PCI_EXP_DEVSTA, 2, 0, derived=r.PCI_EXP_DEVSTA_TRPND, clears=0x000F)
    if kind not in (r.PCI_EXP_TYPE_RC_END, r.PCI_EXP_TYPE_RC_EC):
        yield make("EXP_LNKCTL", r.PCI_EXP_LNKCTL, 2, 0x0FDB, saved=True, survives_flr=True)
        yield make(
            "EXP_LNKSTA", r.PCI_EXP_LNKSTA, 2, 0, derived=r.PCI_EXP_LNKSTA_DLLLA, clears=0xC000, survives_flr=True
        )
    if make.value(r.PCI_EXP_FLAGS, 2) & r.PCI_EXP_FLAGS_SLOT:
        yield make("EXP_SLTCTL", r.PCI_EXP_SLTCTL, 2, 0x1FFF, off=_HOTPLUG_ENABLES, saved=True)
        yield make("EXP_SLTSTA", r.PCI_EXP_SLTSTA, 2, 0, derived=r.PCI_EXP_SLTSTA_PDS, clears=0x011F)
    if kind == r.PCI_EXP_TYPE_ROOT_PORT or kind == r.PCI_EXP_TYPE_RC_EC:
        yield make("EXP_RTCTL", r.PCI_EXP_RTCTL, 2, 0x001F, off=0x001F, saved=True)
    if version >= 2:
        yield make("EXP_DEVCTL2", r.PCI_EXP_DEVCTL2, 2, 0xFFFF, saved=True)
        yield make("EXP_LNKCTL2", r.PCI_EXP_LNKCTL2, 2, 0xFFFF, saved=True, survives_flr=True)
        yield make("EXP_SLTCTL2", r.PCI_EXP_SLTCTL2, 2, 0xFFFF, saved=True)


def _others(pcix: _Maker, af: _Maker) -> Iterator[Register]:
    if pcix.base and pcix.value(0x0, 1) == r.PCI_CAP_ID_PCIX:
        yield pcix("X_CMD", r.PCI_X_CMD, 2, 0x007F, saved=True)
    if af.base:
        yield af("AF_CTRL", r.PCI_AF_CTRL, 1, 0)


def _acs(make: _Maker) -> Iterator[Register]:
    if make.base:
        supported = make.value(r.PCI_ACS_CAP, 2) & 0x7F
        yield make("ACS_CTRL", r.PCI_ACS_CTRL, 2, supported, off=_ACS_SET_BY_KERNEL, saved=True)


def _sriov(make: _Maker) -> Iterator[Register]:
    if make.base:
        yield make("SRIOV_CTRL", r.PCI_SRIOV_CTRL, 2, 0x001F, initial=0)
        yield make("SRIOV_NUM_VF", r.PCI_SRIOV_NUM_VF, 2, 0xFFFF, initial=0)
        yield make("SRIOV_SYS_PGSIZE", r.PCI_SRIOV_SYS_PGSIZE, 4, 0xFFFFFFFF, reset=1)


def _translation(make: partial[_Maker], extended: Mapping[int, int]) -> Iterator[Register]:
    """ATS, PRI and PASID controls."""
    for capability, name, offset, writable in (
        (r.PCI_EXT_CAP_ID_ATS, "ATS_CTRL", r.PCI_ATS_CTRL, 0x801F),
        (r.PCI_EXT_CAP_ID_PRI, "PRI_CTRL", r.PCI_PRI_CTRL, 0x0003),
        (r.PCI_EXT_CAP_ID_PASID, "PASID_CTRL", r.PCI_PASID_CTRL, 0x0007),
    ):
        base = extended.get(capability, 0)
        if base:
            yield make(base)(name, offset, 2, writable, initial=0)
