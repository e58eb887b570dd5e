"""Runs cases and random lives on real kernels and on the model, and tells how far they agree."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quiesce.cases.case import Case
from quiesce.cases.library import find_case
from quiesce.cases.scenario import find_machine, long_form
from quiesce.explore.model import Step
from quiesce.snapshot.qemu_recording import read_recording
from quiesce.testbed import random_lives, recording
from quiesce.testbed.agreement import Confirmation
from quiesce.testbed.both import not_up, play_both
from quiesce.testbed.case_lives import Events, left_out, lives_of, moved
from quiesce.testbed.compare import Life
from quiesce.testbed.errors import GuestDied, GuestGone, Skipped
from quiesce.testbed.guest_side import GuestSide
from quiesce.testbed.images import KernelImage, find_image
from quiesce.testbed.kernel_sets import kernel_set_with, switch_mask
from quiesce.testbed.model_side import ModelSide
from quiesce.testbed.pool import Order, Pool, recorded_machine
from quiesce.testbed.real_drivers import model_name, playable
from quiesce.testbed.topology import Iommu, QemuMachine, qemu_machine

_ROOT_BUS = "0000:00:"


@dataclass(frozen=True, slots=True)
class Target:
    """A kernel and an IOMMU to confirm on."""

    kernel: str
    iommu: Iommu
    """``same`` is what the case's machine has."""
    switches: tuple[str, ...] = ()
    """Faults of the instrumented kernel that are switched on."""

    @property
    def name(self) -> str:
        """Return the kernel with its switches."""
        return "+".join((self.kernel, *self.switches))


@dataclass(frozen=True, slots=True)
class Stage:
    """A case put on the machine and kernel that it is confirmed on."""

    case: Case
    """On the guest's machine, devices where the guest has them."""
    written: Case
    image: KernelImage
    machine: QemuMachine
    data: dict[str, object]
    """The guest as a recording."""
    switches: tuple[str, ...] = ()

    def model(self) -> ModelSide:
        """Return the model's side, before the life begins."""
        return ModelSide.of(self.case, self.had, instrumented=self.image.switches)

    @property
    def had(self) -> Mapping[str, str]:
        """Devices that a built-in driver has had for a moment."""
        found = self.data.get("had", {})
        return {str(bdf): model_name(str(name)) for bdf, name in found.items()} if isinstance(found, dict) else {}

    def order(self, events: Events = ()) -> Order:
        """Return the guest that a life needs."""
        verbs = {event.split()[0] for event in events}
        return Order(
            self.image,
            self.machine,
            self.case.drivers,
            switch_mask(self.switches),
            sleeps="suspend" in verbs,
            kexecs="kexec" in verbs,
        )


class Confirmer:
    """Confirms on one target after the other, with guests from one pool."""

    def __init__(self, pool: Pool, record: Path | None = None) -> None:
        self.pool = pool
        self.record = record

    def case(self, name: str, target: Target) -> Confirmation:
        """Confirm one case; what cannot be tried is a skipped confirmation with the reason."""
        began = time.monotonic()
        case = find_case(name)
        result = Confirmation(case.name, target.name, "", "", target.iommu, left_out=left_out(case))
        try:
            stage = self.stage(case, target)
            self._about(result, stage)
            self._live(stage, lives_of(case, stage.machine.at, stage.case), result)
        except Skipped as reason:
            result.skipped = str(reason)
        except GuestGone as gone:
            result.skipped = f"the guest did not come up: {gone.what}"
        result.seconds = time.monotonic() - began
        return result

    def random(self, seed: int, numbers: Sequence[int], target: Target) -> Iterator[Confirmation]:
        """Confirm random lives, one confirmation each."""
        image = find_image(target.kernel)
        for number in numbers:
            began = time.monotonic()
            drawn = random_lives.draw(seed, number, image.kernel_set, target.iommu)
            result = Confirmation(drawn.case.name, target.name, image.release, image.kernel_set, target.iommu)
            try:
                stage = self.stage(drawn.case, target)
                self._about(result, stage)
                side = stage.model()
                self._live(stage, [random_lives.events_of(drawn, side)], result)
            except Skipped as reason:
                result.skipped = str(reason)
            except GuestGone as gone:
                result.skipped = f"the guest did not come up: {gone.what}"
            result.seconds = time.monotonic() - began
            yield result

    def stage(self, case: Case, target: Target) -> Stage:
        """Put a case on the guest's machine; raises Skipped."""
        image = find_image(target.kernel)
        machine = qemu_machine(find_machine(case.machine, case.path), target.iommu, _wanted(case))
        _check_devices(case, machine)
        data, path = recorded_machine(self.pool, Order(image, machine))
        there = replace(moved(case, machine.at), drivers=playable(case.drivers))
        kernel = kernel_of(image, target.switches)
        return Stage(replace(there, machine=str(path), kernel=kernel), case, image, machine, data, target.switches)

    def _about(self, result: Confirmation, stage: Stage) -> None:
        result.release, result.kernel_set = stage.image.release, stage.case.kernel
        result.iommu = stage.machine.iommu or "none"
        result.machine = stage.machine.differences

    def _live(self, stage: Stage, lives: Sequence[Events], result: Confirmation) -> None:
        kept = []
        for events in lives:
            keeper = recording.Keeper()
            result.lives.append(self.live(stage, events, keeper))
            kept.append(keeper.shown())
        if self.record is not None and kept:
            recording.write(recorded(stage, result, kept), self.record / f"{_file_name(result)}.json.gz")

    def live(self, stage: Stage, events: Events, keeper: recording.Keeper | None = None) -> Life:
        """Live one life on both sides. One that begins with the boot begins with whether the guest comes up."""
        model = stage.model()
        booted = model.play(Step(recording.BOOT)) if events[:1] == (recording.BOOT,) else None
        rest = events[1:] if booted else events
        try:
            guest = self.pool.take(stage.order(events))
        except GuestDied as gone:
            if booted is None:
                raise
            return not_up(events, booted, gone, keeper)
        with guest:
            description = read_recording(json.dumps(stage.data), stage.case.machine)
            there = GuestSide(guest, stage.image, stage.machine, description, stage.case.drivers, model.devices)
            return play_both(model, there, rest, keeper)


def _check_devices(case: Case, machine: QemuMachine) -> None:
    """Raise Skipped for a device that is not there with this IOMMU, or would hang."""
    for bdf in case.devices:
        there = machine.at.get(long_form(bdf))
        if there is None:
            raise Skipped(f"{bdf} is not there with IOMMU {machine.iommu or 'none'}")
        behind = not there.startswith(_ROOT_BUS) and there in machine.by_bdf
        if behind and machine.iommu == "amd" and "nvme" in case.drivers and machine.by_bdf[there].driver == "nvme":
            raise Skipped(f"QEMU's AMD IOMMU does not serve the NVMe {bdf}, which is behind a port")


def _wanted(case: Case) -> frozenset[str] | None:
    """Return the full addresses of the devices that a case is about; None when it is about all of them."""
    return frozenset(long_form(bdf) for bdf in case.devices) or None


def kernel_of(image: KernelImage, switches: Sequence[str]) -> str:
    """Return the kernel set that the model runs; raises Skipped for switches on a kernel without them."""
    if not switches:
        return image.kernel_set
    if not image.switches:
        raise Skipped(f"{image.name} has no switches; 'quiesce kernel build' makes a kernel that has")
    return kernel_set_with(image.point_release, switches)


def recorded(stage: Stage, result: Confirmation, lives: list[recording.Shown]) -> recording.Recording:
    """Return what the guest showed as a recording."""
    return recording.Recording(
        case=result.case,
        kernel=result.kernel,
        release=result.release,
        package=stage.image.package,
        kernel_set=result.kernel_set,
        iommu=result.iommu,
        qemu=str(stage.data.get("qemu", "")),
        drivers=stage.case.drivers,
        devices=stage.case.devices,
        machine=stage.data,
        instrumented=stage.image.switches,
        lives=lives,
    )


def _file_name(result: Confirmation) -> str:
    return f"{result.case}--{result.kernel.replace(':', '-')}--{result.iommu}"
