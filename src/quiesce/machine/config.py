"""Configuration space: an immutable image with writable registers laid over it, each one cell of the world."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quiesce.world import World


@dataclass(frozen=True, slots=True)
class Register:
    """A register that software or hardware can change; little endian, as everything in config space."""

    name: str
    """The kernel's name without ``PCI_``: ``COMMAND``, ``MSI_FLAGS``, ``EXP_SLTCTL``..."""
    offset: int
    size: int
    initial: int
    """Value that firmware leaves before the operating system starts."""
    reset: int
    """Value after a reset and after power comes back."""
    writable: int
    clears: int = 0
    """Bits that a write of 1 clears."""
    saved: bool = False
    """``pci_save_state`` keeps it."""
    survives_flr: bool = False
    cell: int = -1

    def written(self, old: int, value: int, lanes: int) -> int:
        """Return the new value when ``value`` is written in the byte lanes ``lanes``."""
        takes = self.writable & lanes
        return (old & ~takes | value & takes) & ~(value & self.clears & lanes)


class ConfigSpace:
    """The configuration space of one function."""

    def __init__(self, world: World, path: str, image: bytes, registers: tuple[Register, ...] = ()) -> None:
        self.world = world
        self.path = path
        self.image = image
        self.registers: dict[str, Register] = {}
        self._exact: dict[tuple[int, int], Register] = {}
        self._by_byte: dict[int, Register] = {}
        for register in registers:
            self._add(register)

    def _add(self, register: Register) -> None:
        """Lay a register over the image; the first one to claim a byte keeps it."""
        span = range(register.offset, register.offset + register.size)
        if register.name in self.registers or span.stop > len(self.image) or any(at in self._by_byte for at in span):
            return
        cell = self.world.allocate(self.path, register.name, register.initial)
        known = replace(register, cell=cell)
        self.registers[register.name] = known
        self._exact[register.offset, register.size] = known
        self._by_byte.update(dict.fromkeys(span, known))

    @property
    def size(self) -> int:
        """256 bytes, or 4096 with extended configuration space."""
        return len(self.image)

    def get(self, name: str) -> int:
        """Return the value of a register, 0 when the function has none of that name."""
        register = self.registers.get(name)
        return 0 if register is None else int(self.world.read(register.cell))

    def set(self, name: str, value: int) -> None:
        """Let the hardware change a register; write masks do not apply. Without such a register, nothing happens."""
        register = self.registers.get(name)
        if register is not None:
            self.world.write(register.cell, value)

    def static(self, offset: int, size: int) -> int:
        """Return bytes of the image, for registers that never change."""
        return int.from_bytes(self.image[offset : offset + size], "little")

    def read(self, offset: int, size: int) -> int:
        """Return ``size`` bytes; bytes beyond the space read as ones."""
        exact = self._exact.get((offset, size))
        if exact is not None:
            return int(self.world.read(exact.cell))
        found = bytearray(self.image[offset : offset + size].ljust(size, b"\xff"))
        for register in self.touched(offset, size):
            value = int(self.world.read(register.cell)).to_bytes(register.size, "little")
            for at in range(max(offset, register.offset), min(offset + size, register.offset + register.size)):
                found[at - offset] = value[at - register.offset]
        return int.from_bytes(found, "little")

    def write(self, offset: int, size: int, value: int) -> list[tuple[Register, int, int]]:
        """Write ``size`` bytes; returns the registers touched, with the value written to each and its byte lanes."""
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        touched = []
        for register in self.touched(offset, size):
            written = lanes = 0
            for at in range(max(offset, register.offset), min(offset + size, register.offset + register.size)):
                shift = 8 * (at - register.offset)
                written |= data[at - offset] << shift
                lanes |= 0xFF << shift
            old = int(self.world.read(register.cell))
            self.world.write(register.cell, register.written(old, written, lanes))
            touched.append((register, written, lanes))
        return touched

    def touched(self, offset: int, size: int) -> list[Register]:
        """Return the registers that overlap a span."""
        found = (self._by_byte.get(at) for at in range(offset, offset + size))
        return list(dict.fromkeys(register for register in found if register is not None))

    def saved_registers(self) -> tuple[str, ...]:
        """Return the names of the registers that ``pci_save_state`` keeps, in the order of their offsets."""
        saved = sorted((item.offset, item.name) for item in self.registers.values() if item.saved)
        return tuple(name for _, name in saved)

    def reset(self, keep_flr: bool = False) -> None:
        """Give every register its value after a reset; with ``keep_flr``, spare those that an FLR leaves alone."""
        for register in self.registers.values():
            if not (keep_flr and register.survives_flr):
                self.world.write(register.cell, register.reset)

    def firmware(self) -> None:
        """Give every register the value that firmware leaves."""
        for register in self.registers.values():
            self.world.write(register.cell, register.initial)
