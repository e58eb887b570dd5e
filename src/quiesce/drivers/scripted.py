"""Drivers that are scripts: the model interprets the text that a kernel module executes in a real kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from errno import EIO, ENOMEM
from functools import cache, partial
from importlib import resources
from typing import ClassVar

from quiesce.drivers import common
from quiesce.drivers.script_text import STOPPING, Call, Script, error_number, parse_script
from quiesce.kernel import devres, dma, files, irq, msi, pci, pci_devres
from quiesce.kernel.base_core import get_device, put_device
from quiesce.kernel.driver import Operation, PciDriver
from quiesce.kernel.kernel import IrqHandler, Kernel
from quiesce.kernel.objects import PCI_D0, PCI_D1, PCI_D2, PCI_D3HOT, IrqAction, PciDev, address_of
from quiesce.world import Field, State, StateDict

_DATA = "script"
_POWER = {"D0": PCI_D0, "D1": PCI_D1, "D2": PCI_D2, "D3hot": PCI_D3HOT}


class ScriptData(State):
    """What a scripted driver keeps for one binding; path ``qscript/BDF/N``. It outlives the binding while a file is
    open.
    """

    mortal = True
    bound: Field[bool] = Field(True)
    opened: Field[bool] = Field(False)
    buffers: StateDict[str, dma.DmaMapping] = StateDict()
    lines: StateDict[str, int] = StateDict()
    """The interrupt number that each handler was requested on. It stays when the handler is freed, so that a script
    can free it once more."""


# -- calls -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Run:
    """Where a call is made."""

    k: Kernel
    dev: PciDev
    data: ScriptData
    driver: str

    @property
    def mapped(self) -> bool:
        """Whether the driver can reach the device's registers."""
        return self.data.bound and not common.missing(self.dev, self.driver)


_CallFunction = Callable[[_Run, tuple[str, ...]], int | None]


def _plain(function: Callable[[Kernel, PciDev], int | None]) -> _CallFunction:
    return lambda run, _: function(run.k, run.dev)


def _device(function: Callable[[Kernel, PciDev], None]) -> _CallFunction:
    """Make a call of what is written to the device's registers; lost while they are not mapped."""
    return lambda run, _: function(run.k, run.dev) if run.mapped else None


def _iomap(run: _Run, _: tuple[str, ...]) -> None:
    run.dev.drvdata[common.REGS] = True


def _iounmap(run: _Run, _: tuple[str, ...]) -> None:
    if common.REGS in run.dev.drvdata:
        del run.dev.drvdata[common.REGS]


def _pcim_iomap_regions(run: _Run, _: tuple[str, ...]) -> int:
    error = pci_devres.pcim_iomap_regions(run.k, run.dev, common.memory_bar(run.dev), run.driver)
    if not error:
        run.dev.drvdata[common.REGS] = True
    return error


def _alloc_vectors(run: _Run, words: tuple[str, ...]) -> int:
    return msi.pci_alloc_irq_vectors(run.k, run.dev, int(words[0]), int(words[1]), words[2:])


def _action(run: _Run, words: tuple[str, ...]) -> IrqAction:
    message = run.dev.msi_enabled or run.dev.msix_enabled
    shared = "shared" in words or ("shared-line" in words and not message)
    return IrqAction(words[0], f"{run.driver}.interrupt", run.dev, shared)


def _request(run: _Run, words: tuple[str, ...]) -> int:
    line = msi.pci_irq_vector(run.k, run.dev, 0)
    error = irq.request_irq(run.k, line, _action(run, words))
    if not error:
        run.data.lines[words[0]] = line
    return error


def _devm_request(run: _Run, words: tuple[str, ...]) -> int:
    line = msi.pci_irq_vector(run.k, run.dev, 0)
    error = devres.devm_request_irq(run.k, run.dev, line, _action(run, words))
    if not error:
        run.data.lines[words[0]] = line
    return error


def _free(run: _Run, words: tuple[str, ...]) -> None:
    if words[0] in run.data.lines:
        irq.free_irq(run.k, run.data.lines[words[0]], run.dev)


def _devm_free(run: _Run, words: tuple[str, ...]) -> None:
    if words[0] in run.data.lines:
        devres.devm_free_irq(run.k, run.dev, run.data.lines[words[0]], run.dev)


def _map(make: Callable[[Kernel, PciDev, str], dma.DmaMapping | None], run: _Run, words: tuple[str, ...]) -> int:
    mapping = make(run.k, run.dev, words[0])
    if mapping is None:
        return -ENOMEM
    run.data.buffers[words[0]] = mapping
    return 0


def _unmap(end: Callable[[Kernel, PciDev, dma.DmaMapping], None], run: _Run, words: tuple[str, ...]) -> None:
    mapping = run.data.buffers.get(words[0])
    if mapping is not None:
        del run.data.buffers[words[0]]
        end(run.k, run.dev, mapping)


def _dmam_alloc(run: _Run, words: tuple[str, ...]) -> int:
    return 0 if common.dmam_alloc_coherent(run.k, run.dev, words[0]) else -ENOMEM


def _answers(run: _Run, _: tuple[str, ...]) -> int:
    return 0 if run.mapped and common.answers(run.dev) else -EIO


def _start(run: _Run, _: tuple[str, ...]) -> int:
    return 0 if run.mapped and common.start_device(run.k, run.dev) else -EIO


def _give(run: _Run, words: tuple[str, ...]) -> None:
    mapping = run.data.buffers.get(words[0])
    if run.mapped and mapping is not None:
        common.give_to_device(run.dev, mapping)


def _take(run: _Run, words: tuple[str, ...]) -> None:
    mapping = run.data.buffers.get(words[0])
    if run.mapped and mapping is not None and common.answers(run.dev):
        left = (iova for iova in run.dev.hw.dma_target if iova != mapping.iova)
        run.dev.hw.dma_target = tuple(left)


_CALLS: Mapping[str, _CallFunction] = {
    "pci_enable_device": _plain(pci.pci_enable_device),
    "pci_disable_device": _plain(pci.pci_disable_device),
    "pcim_enable_device": _plain(pci_devres.pcim_enable_device),
    "pcim_pin_device": _plain(pci_devres.pcim_pin_device),
    "pci_set_master": _plain(pci.pci_set_master),
    "pci_clear_master": _plain(pci.pci_clear_master),
    "pcim_set_mwi": _plain(pci_devres.pcim_set_mwi),
    "pci_request_regions": lambda run, _: pci.pci_request_regions(run.k, run.dev, run.driver),
    "pci_release_regions": _plain(pci.pci_release_regions),
    "pci_iomap": _iomap,
    "pci_iounmap": _iounmap,
    "pcim_iomap_regions": _pcim_iomap_regions,
    "pci_intx": lambda run, words: pci.pci_intx(run.k, run.dev, words[0] == "1"),
    "pcim_intx": lambda run, words: common.managed_intx(run.k, run.dev, words[0] == "1"),
    "pci_alloc_irq_vectors": _alloc_vectors,
    "pci_free_irq_vectors": _plain(msi.pci_free_irq_vectors),
    "pci_enable_msi": _plain(msi.pci_enable_msi),
    "pci_disable_msi": _plain(msi.pci_disable_msi),
    "request_irq": _request,
    "free_irq": _free,
    "devm_request_irq": _devm_request,
    "devm_free_irq": _devm_free,
    "dma_map_single": partial(_map, dma.dma_map_single),
    "dma_unmap_single": partial(_unmap, dma.dma_unmap_single),
    "dma_alloc_coherent": partial(_map, dma.dma_alloc_coherent),
    "dma_free_coherent": partial(_unmap, dma.dma_free_coherent),
    "dmam_alloc_coherent": _dmam_alloc,
    "pci_save_state": _plain(pci.pci_save_state),
    "pci_restore_state": _plain(pci.pci_restore_state),
    "pci_set_power_state": lambda run, words: pci.pci_set_power_state(run.k, run.dev, _POWER[words[0]]),
    "pci_dev_get": lambda run, _: get_device(run.k, run.dev, run.data),
    "pci_dev_put": lambda run, _: put_device(run.k, run.dev, run.data),
    "kzalloc": lambda run, words: 0 if run.k.alloc(words[0]) else -ENOMEM,
    "answers": _answers,
    "start_device": _start,
    "stop_device": _device(common.stop_device),
    "mask_device": _device(common.mask_device),
    "give_to_device": _give,
    "take_from_device": _take,
    "window": lambda run, words: run.k.window(f"{run.driver}: {' '.join(words)}"),
    "fail": lambda run, words: -error_number(words[0]),
}


# -- the driver ------------------------------------------------------------------------------------------------


class ScriptedDriver(PciDriver):
    """A driver that does what its script says; ``driver_class`` makes one of a script."""

    script: ClassVar[Script]

    def _run(self, k: Kernel, dev: PciDev, data: ScriptData, section: str) -> int:
        """Run a callback. When a step fails that may not, what was done is undone in reverse, if the callback can fail
        at all.
        """
        run = _Run(k, dev, data, self.name)
        undo: list[Call] = []
        for step in self.script.sections.get(section, ()):
            error = _call(run, step.call)
            if error >= 0:
                undo += (step.undo,) if step.undo else ()
            elif not step.may_fail and section in STOPPING:
                for call in reversed(undo):
                    _call(run, call)
                return error
        return 0

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """The script's ``probe``."""
        data = ScriptData.fresh(k.world, f"qscript/{address_of(dev)}")
        dev.drvdata[_DATA] = data
        error = self._run(k, dev, data, "probe")
        if error:
            data.delete()
        else:
            dev.drvdata[common.READY] = True
        return error

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """The script's ``remove``, and ``release`` if no file is open."""
        data: ScriptData = dev.drvdata[_DATA]
        del dev.drvdata[common.READY]
        self._run(k, dev, data, "remove")
        data.bound = False
        self._release_unless_used(k, dev, data)

    def _release_unless_used(self, k: Kernel, dev: PciDev, data: ScriptData) -> None:
        if not (data.bound or data.opened):
            self._run(k, dev, data, "release")
            data.delete()

    def _bound(self, k: Kernel, dev: PciDev, section: str) -> int:
        return self._run(k, dev, dev.drvdata[_DATA], section)

    def has_shutdown(self, k: Kernel) -> bool:
        """Whether the script has a ``shutdown``."""
        return "shutdown" in self.script.sections

    def shutdown(self, k: Kernel, dev: PciDev) -> None:
        """The script's ``shutdown``."""
        self._bound(k, dev, "shutdown")

    def suspend(self, k: Kernel, dev: PciDev) -> int:
        """The script's ``suspend``."""
        return self._bound(k, dev, "suspend")

    def resume(self, k: Kernel, dev: PciDev) -> int:
        """The script's ``resume``."""
        return self._bound(k, dev, "resume")

    def handlers(self) -> Mapping[str, IrqHandler]:
        """One handler, for every interrupt of the script."""
        key = f"{self.name}.interrupt"
        return {key: lambda k, line, dev: common.service(k, dev, self.name, "qscript_interrupt")}

    # -- its file ----------------------------------------------------------------------------------------------

    def operations(self) -> tuple[Operation, ...]:
        """``PREFIX-open`` and ``PREFIX-close``, if the script has those."""
        if "open" not in self.script.sections:
            return ()
        prefix = self.script.operations
        return (
            common.operation(f"{prefix}-open", self._can_open, self._open, "a program opens the driver's file"),
            common.operation(f"{prefix}-close", self._can_close, self._close, "a program closes the driver's file"),
        )

    def _can_open(self, k: Kernel, dev: PciDev) -> bool:
        return common.reachable(dev, self.name) and not files.files_of(k, dev, self.name)

    def _open(self, k: Kernel, dev: PciDev) -> int:
        data: ScriptData = dev.drvdata[_DATA]
        error = self._run(k, dev, data, "open")
        if not error:
            data.opened = True
            files.open_file(k, dev, self.name, data)
        return error

    def _can_close(self, k: Kernel, dev: PciDev) -> bool:
        return bool(files.files_of(k, dev, self.name))

    def _close(self, k: Kernel, dev: PciDev) -> int:
        file = files.files_of(k, dev, self.name)[0]
        data: ScriptData = file.private
        self._run(k, dev, data, "close")
        data.opened = False
        self._release_unless_used(k, dev, data)
        files.close_file(k, file)
        return 0


def _call(run: _Run, call: Call) -> int:
    return _CALLS[call.name](run, call.arguments) or 0


def driver_class(script: Script) -> type[ScriptedDriver]:
    """Make the class of a driver out of its script."""
    own = {
        "__doc__": f"The driver of the script {script.name}.",
        "script": script,
        "name": script.name,
        "ids": script.ids,
        "has_pm_ops": "suspend" in script.sections or "resume" in script.sections,
    }
    return type(f"Scripted {script.name}", (ScriptedDriver,), own)


@cache
def shipped() -> Mapping[str, Script]:
    """Return the scripts that come with quiesce, by driver name."""
    folder = resources.files("quiesce.drivers") / "scripts"
    found = (item for item in folder.iterdir() if item.name.endswith(".driver"))
    scripts = [parse_script(item.read_text(encoding="utf-8"), item.name) for item in found]
    return {script.name: script for script in sorted(scripts, key=lambda script: script.name)}
