"""Guests ready for a life: booted once and restored from then on where the machine allows it, else booted each time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quiesce.testbed import real_drivers
from quiesce.testbed.guest import Guest
from quiesce.testbed.images import KernelImage
from quiesce.testbed.read_back import mend, recording, tables_in
from quiesce.testbed.scripted import ScriptModule
from quiesce.testbed.store import cache_dir, locked
from quiesce.testbed.topology import QemuMachine

_AUTOPROBE = "/sys/bus/pci/drivers_autoprobe"
_AGAIN = """echo 0 > /sys/bus/pci/drivers_autoprobe
for d in /sys/bus/pci/devices/*; do
  case $(cat $d/class) in 0x06*) continue;; esac
  [ -e $d/driver ] && echo 1 > $d/remove
done
echo 1 > /sys/bus/pci/rescan
for d in /sys/bus/pci/devices/*; do
  case $(cat $d/class) in 0x06*) continue;; esac
  [ -e $d/driver ] && echo had ${d##*/} $(readlink $d/driver) && echo ${d##*/} > $d/driver/unbind
done
echo 1 > /sys/bus/pci/drivers_autoprobe"""
"""Lets no device have had a driver: one that a built-in driver has taken at boot is removed and found again. Before
v7.2 what is found is bound again whatever drivers_autoprobe says; that is undone, and told."""


_ALWAYS = ("aer_inject",)


@dataclass(frozen=True, slots=True)
class Order:
    """What a life needs of its guest."""

    image: KernelImage
    machine: QemuMachine
    drivers: tuple[str, ...] = ()
    """Driver models whose real drivers are loaded."""
    bugs: int = 0
    """The mask of the instrumented kernel's switches."""
    sleeps: bool = False
    kexecs: bool = False

    @property
    def restores(self) -> bool:
        """Whether a saved guest can be used."""
        return self.machine.snapshots and not self.kexecs

    def guest(self) -> Guest:
        """Return the guest, not started; raises Skipped."""
        return Guest(
            self.image,
            self.machine,
            _modules(self.image, self.drivers),
            sleeps=self.sleeps or self.kexecs,
            append=f"quiesce.bugs={self.bugs}" if self.bugs else "",
            second=self.image if self.kexecs else None,
        )

    def key(self) -> str:
        """Return what a saved guest of this order, and a recording of its machine, is stored under."""
        parts = (self.image.folder, self.machine.arguments, self.machine.append, sorted(self.drivers))
        text = repr((*parts, sorted(self.machine.tables.items()), self.bugs, self.sleeps))
        return hashlib.sha256(text.encode()).hexdigest()[:20]


class Pool:
    """Lends guests; what it saved on the way is in a folder of its own and goes with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._refused: set[str] = set()

    def take(self, order: Order) -> Guest:
        """Return a running guest whose drivers are loaded and have no device yet; it is a context manager."""
        return self._restored(order) or _booted(order)

    def _restored(self, order: Order) -> Guest | None:
        key = order.key()
        if not order.restores or key in self._refused:
            return None
        path = self.folder / f"{key}.guest"
        with locked(f"guest-{key}"):
            if not path.exists():
                self._save(order, path)
        guest = order.guest()
        guest.restore(path)
        try:
            mend(guest, json.loads(path.with_suffix(".blank").read_text()))
            return guest
        except BaseException:
            guest.stop()
            raise

    def _save(self, order: Order, path: Path) -> None:
        with order.guest() as guest:
            _settled(guest, order)
            blank = {bdf: guest.config(bdf, 64).hex() for bdf in order.machine.blank}
            path.with_suffix(".blank").write_text(json.dumps(blank))
            guest.save(path)


def _started(order: Order) -> Guest:
    guest = order.guest()
    guest.start()
    return guest


def _booted(order: Order) -> Guest:
    guest = _started(order)
    try:
        _settled(guest, order)
        return guest
    except BaseException:
        guest.stop()
        raise


def _settled(guest: Guest, order: Order) -> dict[str, str]:
    """Define the scripted drivers, and take from built-in drivers what they bound at boot; returns which devices have
    had a driver nevertheless.
    """
    module = ScriptModule(guest)
    guest.write(_AUTOPROBE, "0")
    for model in order.drivers:
        script = real_drivers.real_driver(model).script
        if script is not None:
            module.define(script)
    lines = (line.split() for line in guest.shell(_AGAIN)[1].splitlines() if line.startswith("had "))
    return {bdf: driver.rpartition("/")[2] for _, bdf, driver in lines}


def _modules(image: KernelImage, drivers: Sequence[str]) -> tuple[str, ...]:
    wanted = (*real_drivers.modules_of(drivers), *(name for name in _ALWAYS if image.has_module(name)))
    return tuple(name for name in wanted if not image.builtin(name))


# -- the machine ---------------------------------------------------------------------------------------------


def recorded_machine(pool: Pool, order: Order) -> tuple[dict[str, Any], Path]:
    """Return the guest's machine as a recording, and the file that holds it; made once for each kernel and machine."""
    bare = Order(order.image, order.machine)
    path = cache_dir() / "machines" / f"{order.machine.name}-{bare.key()}.json"
    with locked(path.stem):
        if not path.exists():
            with _started(bare) as guest:
                had = _settled(guest, bare)
                facts = {"kernel": order.image.release, "had": had}
                made = recording(guest.snapshot(), tables_in(guest), order.machine.name, **facts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made)
    return json.loads(path.read_text()), path
