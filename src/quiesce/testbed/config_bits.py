"""The fields that the silicon shows by itself, decoded from 256 bytes of config space, the model's or a guest's."""

from __future__ import annotations

from collections.abc import Iterator

from quiesce.snapshot import pci_regs as r
from quiesce.testbed.observation import ABSENT, GONE, HARDWARE_FIELDS, flag

SIZE = 256
"""Bytes of config space that are looked at."""
_FIRST_CAPABILITY = 0x40
_MAX_CAPABILITIES = 48


def config_fields(config: bytes) -> dict[str, str]:
    """Return the fields of a function by its config space; all ``gone`` where nothing answers."""
    if len(config) < SIZE or config[:4] == b"\xff\xff\xff\xff":
        return dict.fromkeys(HARDWARE_FIELDS, GONE)
    capabilities = dict(reversed(list(_capabilities(config))))
    command = _word(config, r.PCI_COMMAND)
    return {
        "io": flag(command & r.PCI_COMMAND_IO),
        "mem": flag(command & r.PCI_COMMAND_MEMORY),
        "master": flag(command & r.PCI_COMMAND_MASTER),
        "intx_disable": flag(command & r.PCI_COMMAND_INTX_DISABLE),
        "pin": " ABCD"[config[r.PCI_INTERRUPT_PIN] % 5].strip() or ABSENT,
        **_power(config, capabilities.get(r.PCI_CAP_ID_PM, 0)),
        **_messages(config, capabilities.get(r.PCI_CAP_ID_MSI, 0), capabilities.get(r.PCI_CAP_ID_MSIX, 0)),
    }


def _word(config: bytes, offset: int) -> int:
    return int.from_bytes(config[offset : offset + 2], "little")


def _capabilities(config: bytes) -> Iterator[tuple[int, int]]:
    """Yield id and offset of every capability; where an id comes twice the kernel takes the first."""
    if not _word(config, r.PCI_STATUS) & r.PCI_STATUS_CAP_LIST:
        return
    at = config[r.PCI_CAPABILITY_LIST] & ~3
    for _ in range(_MAX_CAPABILITIES):
        if at < _FIRST_CAPABILITY or config[at] == 0xFF:
            return
        yield config[at], at
        at = config[at + 1] & ~3


def _power(config: bytes, base: int) -> dict[str, str]:
    if not base:
        return {"power": ABSENT}
    state = _word(config, base + r.PCI_PM_CTRL) & r.PCI_PM_CTRL_STATE_MASK
    return {"power": ("D0", "D1", "D2", "D3hot")[state]}


def _messages(config: bytes, msi: int, msix: int) -> dict[str, str]:
    msi_flags = _word(config, msi + r.PCI_MSI_FLAGS)
    msix_flags = _word(config, msix + r.PCI_MSIX_FLAGS)
    return {
        "msi": flag(msi_flags & r.PCI_MSI_FLAGS_ENABLE) if msi else ABSENT,
        "msix": flag(msix_flags & r.PCI_MSIX_FLAGS_ENABLE) if msix else ABSENT,
        "msix_masked": flag(msix_flags & r.PCI_MSIX_FLAGS_MASKALL) if msix else ABSENT,
    }
