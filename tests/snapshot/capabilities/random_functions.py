"""Functions with random registers, one capability of every kind at its place."""

from __future__ import annotations

from random import Random

from quiesce.snapshot import pci_regs as r
from quiesce.snapshot.bdf import Bdf
from quiesce.snapshot.capabilities.decode import EXTENDED, STANDARD
from quiesce.snapshot.description import FunctionDescription

FIRST, EXPRESS, END = 0x40, 0x90, 0x100
PORT_TYPES = (0, 1, 4, 5, 6, 7, 8, 9, 10)


def random_function(random: Random, bdf: Bdf, cap_id: int, extended: bool) -> FunctionDescription:
    """Return a PCI Express function with one more capability, all of whose registers are random."""
    config = bytearray(random.randbytes(4096))
    config[r.PCI_STATUS] |= r.PCI_STATUS_CAP_LIST
    config[r.PCI_HEADER_TYPE] = random.choice((0, 0, 1, 0x80, 0x81, 2))
    pointer = r.PCI_CB_CAPABILITY_LIST if config[r.PCI_HEADER_TYPE] == 2 else r.PCI_CAPABILITY_LIST
    config[pointer] = EXPRESS if extended else FIRST
    config[FIRST : FIRST + 2] = bytes((cap_id & 0xFF, EXPRESS if cap_id != r.PCI_CAP_ID_EXP else 0))
    config[EXPRESS : EXPRESS + 2] = bytes((r.PCI_CAP_ID_EXP, 0))
    config[EXPRESS + 2] = random.choice(PORT_TYPES) << 4 | random.choice((1, 2))
    if cap_id == r.PCI_CAP_ID_EXP:
        config[FIRST + 2] = config[EXPRESS + 2]
    _sane_header(random, config)
    for base in (FIRST, EXPRESS):
        config[base + 0x2C] = (2 << random.randint(0, 4)) * 2 - 2
    if cap_id == r.PCI_CAP_ID_PCIX and config[r.PCI_HEADER_TYPE] == 2:
        config[r.PCI_HEADER_TYPE] = 0
        config[r.PCI_CAPABILITY_LIST] = FIRST
    if extended:
        _sane_extended(config, cap_id)
    if cap_id == r.PCI_CAP_ID_EA:  # lspci reads beyond the capability when entries are longer than they can be
        config[FIRST + 2] = random.randint(0, 1)
        for entry in (4, 8):
            config[FIRST + entry] = config[FIRST + entry] & 0xF8 | 4
    header = (cap_id | 1 << 16) if extended else 0
    config[END : END + 4] = header.to_bytes(4, "little")
    return FunctionDescription(bdf, bytes(config))


def _sane_extended(config: bytearray, cap_id: int) -> None:
    """Keep to values whose meaning lspci shows in full."""
    if cap_id == r.PCI_EXT_CAP_ID_LTR:  # scales that the specification permits
        for at in (END + 5, END + 7):
            config[at] = config[at] & 0x0F
    elif cap_id == r.PCI_EXT_CAP_ID_SECPCI:  # lspci shows 16 lanes
        config[END + 10 : END + 12] = b"\0\0"
    elif cap_id == r.PCI_EXT_CAP_ID_RCLD:  # reserved bits that lspci takes for a part of the type
        config[END + 4] &= 0x0F
    elif cap_id == r.PCI_EXT_CAP_ID_RCEC:  # lspci drops a range that ends at device 31
        config[END + 7] &= 0xBF


def _sane_header(random: Random, config: bytearray) -> None:
    """Keep to values that a header can have: lspci prints complaints in the place of what it cannot believe."""
    config[r.PCI_INTERRUPT_PIN] = random.randint(0, 4)
    kind = config[r.PCI_HEADER_TYPE] & r.PCI_HEADER_TYPE_MASK
    if kind == r.PCI_HEADER_TYPE_BRIDGE:
        config[r.PCI_CLASS_DEVICE : r.PCI_CLASS_DEVICE + 2] = r.PCI_CLASS_BRIDGE_PCI.to_bytes(2, "little")
        for at, wide in ((r.PCI_IO_BASE, random.getrandbits(1)), (r.PCI_MEMORY_BASE, 0), (0x24, random.getrandbits(1))):
            for end in (at, at + (1 if at == r.PCI_IO_BASE else 2)):
                config[end] = config[end] & 0xF0 | wide
    if kind == r.PCI_HEADER_TYPE_CARDBUS:
        config[r.PCI_CLASS_DEVICE : r.PCI_CLASS_DEVICE + 2] = b"\x07\x06"


def random_machine(seed: int, rounds: int) -> list[FunctionDescription]:
    """Return functions with every capability that a table describes, several times each."""
    random = Random(seed)
    kinds = [(cap_id, False) for cap_id in STANDARD] + [(cap_id, True) for cap_id in EXTENDED]
    wanted = [kind for kind in kinds for _ in range(rounds)]
    places = (Bdf(0, number >> 8, number >> 3 & 0x1F, number & 7) for number in range(len(wanted)))
    return [random_function(random, place, *kind) for place, kind in zip(places, wanted, strict=True)]
