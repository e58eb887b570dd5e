"""Numbers of the kernel's structures as the texts of an observation."""

from __future__ import annotations

from quiesce.testbed.observation import NONE, UNSEEN

FIRST_LINE = 16
"""The first interrupt number that is an IO-APIC input of PCI; below are the ISA interrupts."""
GSI_TOP = 24
"""The first number above the inputs of the one IO-APIC that QEMU's machines have: messages begin there."""
_POWER = ("D0", "D1", "D2", "D3hot", "D3cold", "unknown")
_ERROR = {1: "normal", 2: "frozen", 3: "perm_failure"}
_MODELS = {"i801_smbus": "i2c_i801", "agpgart-amd64": "agp-amd64"}
"""Drivers that the model names otherwise, by the name that the kernel gives them."""


def driver_name(name: str) -> str:
    """Return the model's name for a driver of a real kernel."""
    return _MODELS.get(name, name) or NONE


def irq_kind(number: int, top: int = GSI_TOP) -> str:
    """Return what a number in ``pci_dev.irq`` stands for; firmware's is what the Interrupt Line register said."""
    if number <= 0:
        return NONE
    if number >= top:
        return "message" if number != 0xFF else "firmware"
    return "line" if number >= FIRST_LINE else "firmware"


def power_state(number: int) -> str:
    """Return the name of a ``pci_power_t``."""
    return _POWER[number] if 0 <= number < len(_POWER) else "unknown"


def error_state(state: int | str) -> str:
    """Return the name of a ``pci_channel_state_t``; the model keeps the names."""
    return state if isinstance(state, str) else _ERROR.get(state, UNSEEN)


def domain_type(name: str) -> str:
    """Return the model's type of a default domain as the group's attribute shows it."""
    return "DMA" if name == "dma" else name
