"""Lives drawn at random from the model's vocabulary, to be lived on a real kernel as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from random import Random

from quiesce.cases.case import Case
from quiesce.explore.model import Step
from quiesce.testbed.model_side import ModelSide
from quiesce.testbed.steps import CANNOT

MACHINES = ("desk", "bench")
LONGEST = 12
_SHORTEST = 3

_OF_DEVICE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "0000:00:02.0": {"desk": ("virtio-pci",), "bench": ("uio_pci_generic", "correct", "legacy-intx", "late-unmap")},
    "0000:01:00.0": {"desk": ("e1000e",)},
    "0000:00:04.0": {"bench": ("nvme",)},
    "0000:02:00.0": {"desk": ("xhci_hcd",)},
    "0000:03:00.0": {"desk": ("uio_pci_generic", "correct", "managed-intx", "late-unmap", "no-disable")},
    "0000:00:1f.2": {"desk": ("ahci",), "bench": ("ahci",)},
    "0000:00:03.0": {"bench": ("ahci",)},
    "0000:02:01.0": {"bench": ("uio_pci_generic", "correct")},
    "0000:02:02.0": {"bench": ("uio_pci_generic", "managed-toggle")},
}
"""Which drivers each device of the machines can have."""
_ANYWHERE = ("vfio-pci", "pci-stub")

_WEIGHTS = {
    "bind": 8,
    "unbind": 4,
    "rescan": 6,
    "remove": 2,
    "vfio-open": 6,
    "vfio-close": 2,
    "plug": 4,
    "load": 2,
    "unload": 1,
    "unplug": 1,
    "suspend": 1,
    "resume": 9,
    "kexec": 0.3,
    "reboot": 0.3,
    "second-kernel": 9,
}
_ORDINARY = 3
_IOMMU_LINE = {"none": "", "intel": "iommu intel\n", "amd": "iommu amd 00:01.0\n"}
"""QEMU puts the AMD IOMMU's own function into the first free slot."""
_LAST = 0.1
"""The share of lives that end in a shutdown."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One random life, but for its events, which depend on what the model finds possible."""

    seed: int
    number: int
    machine: str
    case: Case
    sleeps: bool
    """Whether it may go to sleep or to another kernel, which needs a slower boot."""

    @property
    def rng(self) -> Random:
        """The source of its further choices."""
        return Random(f"{self.seed}/{self.number}/events")


def machine_text(name: str, iommu: str) -> str:
    """Return the description of one of the machines with an IOMMU, or with none."""
    text = (resources.files("quiesce.testbed") / "machines" / f"{name}.txt").read_text()
    return text + _IOMMU_LINE[iommu]


def draw(seed: int, number: int, kernel_set: str, iommu: str) -> Draw:
    """Choose machine, devices and drivers of a random life; the same for the same seed and number."""
    rng = Random(f"{seed}/{number}")
    machine = rng.choice(MACHINES)
    known = [bdf for bdf, drivers in _OF_DEVICE.items() if machine in drivers]
    devices = sorted(rng.sample(known, rng.choice((1, 1, 2, 2, 3))))
    drivers = {rng.choice(_OF_DEVICE[bdf][machine]) for bdf in devices} | {rng.choice(_ANYWHERE)}
    case = Case(
        f"random-{seed}-{number}",
        title="a life drawn at random",
        machine=machine_text(machine, iommu),
        kernel=kernel_set,
        drivers=tuple(sorted(drivers)),
        devices=tuple(devices),
    )
    return Draw(seed, number, machine, case, sleeps=rng.random() < _LAST)


def events_of(drawn: Draw, model: ModelSide) -> tuple[str, ...]:
    """Choose the events of a life among what the model finds possible, one after the other."""
    rng = drawn.rng
    length = rng.randint(_SHORTEST, LONGEST)
    known = [text for text in model.events() if _wanted(text, drawn.sleeps)]
    life: list[str] = []
    while len(life) < length:
        possible = model.possible(known)
        if not possible:
            break
        event = rng.choices(possible, [_weight(text) for text in possible])[0]
        told = model.play(Step(event))
        life.append(event)
        if told is None or told.ended:
            break
    return tuple(life)


def _wanted(text: str, sleeps: bool) -> bool:
    verb = text.split()[0]
    return verb not in CANNOT and verb != "boot" and (sleeps or verb not in ("suspend", "resume", "kexec", "reboot"))


def _weight(text: str) -> float:
    return _WEIGHTS.get(text.split()[0], _ORDINARY)
