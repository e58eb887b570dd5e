"""A guest: a kernel that runs under QEMU and does as it is told.

Everything blocks, and every wait has a deadline: GuestHung when it passes, GuestDied when the guest is lost. QEMU ends
with the guest object, and at the latest when this process does, however it ends.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from quiesce.testbed import migration
from quiesce.testbed.errors import Skipped
from quiesce.testbed.guest_outside import KEXEC_INITRAMFS, KEXEC_KERNEL, Outside
from quiesce.testbed.initramfs import write_initramfs
from quiesce.testbed.qemu import Descriptors, Qemu, command_line, find_qemu, kernel_options
from quiesce.testbed.vm import VirtualMachine

if TYPE_CHECKING:
    from quiesce.testbed.images import KernelImage
    from quiesce.testbed.topology import QemuMachine

_BOOT_SECONDS = 180.0
_MEMORY, _MEMORY_FOR_TWO = 256, 512
_PING_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Boot:
    """What it took to come up, or to be restored: seconds on the wall and of QEMU's processor time."""

    wall: float
    cpu: float


class Guest(Outside):
    """A kernel on a machine. A context manager; ``start`` and ``stop`` do the same by hand.

    ``modules`` are loaded when it starts, ``unloaded`` only lie in ``/mod``; afterwards no driver is bound that is not
    built in. ``sleeps`` boots the way that suspending to memory needs, which takes longer; so does ``second``, a kernel
    for ``kexec``. ``files`` are put into its file system, ``memory`` is in MiB.
    """

    def __init__(
        self,
        image: KernelImage,
        machine: QemuMachine,
        modules: Sequence[str] = (),
        *,
        sleeps: bool = False,
        append: str = "",
        memory: int = 0,
        files: Mapping[str, bytes] | None = None,
        unloaded: Sequence[str] = (),
        second: KernelImage | None = None,
        qemu: Qemu | None = None,
    ) -> None:
        super().__init__()
        self.image = image
        self.machine = machine
        self.modules = tuple(modules)
        self.unloaded = tuple(unloaded)
        self.append = append
        self.memory = memory or (_MEMORY_FOR_TWO if second else _MEMORY)
        self.files = dict(files or {})
        self.second = second
        self.qemu = qemu
        self._sleeps = sleeps or second is not None
        self.boot = Boot(0.0, 0.0)

    # -- coming and going ------------------------------------------------------------------------------------

    def start(self, timeout: float = _BOOT_SECONDS) -> None:
        """Boot and load the modules; raises Skipped for what cannot be had here."""
        began = time.monotonic()
        self._launch()
        try:
            self.vm.reply(0, timeout, "booting")
            self.boot = Boot(time.monotonic() - began, self.vm.cpu())
            self.load_modules()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the guest; may be called again."""
        if hasattr(self, "vm"):
            self.vm.stop()

    def __enter__(self) -> Self:
        if not hasattr(self, "vm"):
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def cpu(self) -> float:
        """Return the processor seconds that QEMU has used."""
        return self.vm.cpu()

    def console(self) -> str:
        """Return what the kernel wrote to its console."""
        return self.vm.console()

    def oops(self) -> str:
        """Return the console's first line about a fault in the kernel, or nothing. The guest may still answer."""
        return self.vm.oops()

    # -- saving and restoring --------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Save the guest to a file; it runs on. Raises Skipped where a device refuses."""
        if not self.machine.snapshots:
            raise Skipped(f"{self.machine.name}: a device or the IOMMU of this machine cannot be saved")
        self.fetch_log()
        migration.save(self.vm, path, self._qemu())

    def restore(self, path: Path) -> None:
        """Start from a saved guest of the same image, machine, modules and options instead of booting."""
        began = time.monotonic()
        self._launch(migration.incoming(path, self._qemu()))
        try:
            migration.finish_restore(self.vm)
            self.vm.ask("ping", b"", _PING_SECONDS, "a restored guest")
            self.boot = Boot(time.monotonic() - began, self.vm.cpu())
        except BaseException:
            self.stop()
            raise

    @classmethod
    def restored(
        cls,
        path: Path,
        image: KernelImage,
        machine: QemuMachine,
        modules: Sequence[str] = (),
        **options: Any,
    ) -> Self:
        """Return a running guest from a saved one, which was made with the same arguments."""
        guest = cls(image, machine, modules, **options)
        guest.restore(path)
        return guest

    # -- below -----------------------------------------------------------------------------------------------

    def _qemu(self) -> Qemu:
        if self.qemu is None:
            self.qemu = find_qemu(self.machine.needs)
        return self.qemu

    def _launch(self, incoming: str = "") -> None:
        if hasattr(self, "vm"):
            raise RuntimeError("a guest is started once")
        qemu = self._qemu()
        kernel = self.image.bzimage if self._sleeps else self.image.vmlinux
        initramfs = write_initramfs(
            self.image, self.modules, unloaded=self.unloaded, tables=self.machine.tables, files=self._files()
        )

        def command(descriptors: Descriptors) -> list[str]:
            return command_line(
                qemu,
                self.machine,
                kernel,
                initramfs,
                descriptors,
                append=self.append,
                memory=self.memory,
                incoming=incoming,
            )

        self.vm = VirtualMachine(command)

    def _files(self) -> dict[str, bytes]:
        if self.second is None:
            return self.files
        if not self.second.relocatable:
            raise Skipped(f"{self.second.name} cannot be jumped to: it is not relocatable")
        self._second_options = kernel_options(self.machine, self.append)
        initramfs = write_initramfs(self.second, (), helpers=False)
        kernel = {KEXEC_KERNEL: self.second.bzimage.read_bytes(), KEXEC_INITRAMFS: initramfs.read_bytes()}
        return self.files | kernel
