"""PCI Express ports and their services (drivers/pci/pcie/portdrv*.c)."""

from __future__ import annotations

from collections.abc import Mapping
from errno import ENODEV

from quiesce.drivers import common
from quiesce.kernel import changes, msi, pci
from quiesce.kernel.driver import DeviceId, PciDriver
from quiesce.kernel.kernel import IrqHandler, Kernel
from quiesce.kernel.objects import PciDev
from quiesce.machine import pci_regs as r

_PORTS = (r.PCI_EXP_TYPE_ROOT_PORT, r.PCI_EXP_TYPE_UPSTREAM, r.PCI_EXP_TYPE_DOWNSTREAM)
_SERVICES = "services"
_HOTPLUG_CAPABLE = r.PCI_EXP_SLTCAP_HPC


def port_services(dev: PciDev) -> tuple[str, ...]:
    """drivers/pci/pcie/portdrv.c, ``get_port_device_capability``. Kept: which services the port has interrupts for."""
    hw = dev.hw
    found = []
    if hw.has_slot and hw.config.static(hw.find_capability(r.PCI_CAP_ID_EXP) + r.PCI_EXP_SLTCAP, 4) & _HOTPLUG_CAPABLE:
        found.append("pciehp")
    if hw.find_ext_capability(r.PCI_EXT_CAP_ID_ERR):
        found.append("aer")
    if hw.pcie_type == r.PCI_EXP_TYPE_ROOT_PORT:
        found.append("pme")
    if hw.find_ext_capability(r.PCI_EXT_CAP_ID_DPC):
        found.append("dpc")
    return tuple(found)


class PciePort(PciDriver):
    """Kept: binds to ports, enables them, one vector for all services; shutdown stops the services (v4.15+) and until
    v6.2 disabled the port with everything below; does not use its DMA domain (v5.19+).

    Left out: what the services do (kernel/hotplug.py has hot-plug), a vector per service, runtime PM.
    """

    name = "pcieport"
    builtin = True
    ids = (DeviceId(base_class=0x06, sub_class=0x04),)
    driver_managed_dma = True
    error_handlers = True

    def probe(self, k: Kernel, dev: PciDev) -> int:
        """``pcie_portdrv_probe``."""
        if dev.hw.pcie_type not in _PORTS:
            return -ENODEV
        error = pci.pci_enable_device(k, dev)
        if error:
            return error
        services = port_services(dev)
        if not services:
            return 0
        pci.pci_set_master(k, dev)
        got = msi.pci_alloc_irq_vectors(k, dev, 1, 1, ("msix", "msi", "intx"))
        if got < 0 and "pciehp" not in services:
            pci.pci_disable_device(k, dev)
            return got
        pci.pci_save_state(k, dev)
        dev.drvdata[common.REGS] = True
        dev.drvdata[_SERVICES] = services
        if got > 0:
            self._start_services(k, dev)
        return 0

    def _start_services(self, k: Kernel, dev: PciDev) -> None:
        """The services' own probes; one that cannot have its handler is left without a driver."""
        if common.request_vectors(k, dev, "pcieport.interrupt", (" ".join(dev.drvdata[_SERVICES]),)) == 0:
            dev.hw.engine = "running"
            dev.hw.irq_enabled = True

    def _stop_services(self, k: Kernel, dev: PciDev) -> None:
        if dev.hw.reachable:
            dev.hw.engine = "off"
            dev.hw.irq_enabled = dev.hw.irq_status = False
        common.free_vectors(k, dev)
        if dev.drvdata.get(_SERVICES):
            msi.pci_free_irq_vectors(k, dev)
            dev.drvdata[_SERVICES] = ()

    def remove(self, k: Kernel, dev: PciDev) -> None:
        """``pcie_portdrv_remove``."""
        self._stop_services(k, dev)
        pci.pci_disable_device(k, dev)

    def has_shutdown(self, k: Kernel) -> bool:
        """Since v4.15."""
        return k.has(changes.PORTDRV_SHUTDOWN)

    def shutdown(self, k: Kernel, dev: PciDev) -> None:
        """``pcie_portdrv_shutdown``; until v6.2 it was ``pcie_portdrv_remove``."""
        self._stop_services(k, dev)
        if not k.has(changes.PORTDRV_SHUTDOWN_KEEPS_PORT):
            pci.pci_disable_device(k, dev)

    def resume(self, k: Kernel, dev: PciDev) -> int:
        """``pcie_port_device_resume``: the services switch their interrupts on again."""
        if common.vectors(dev) and dev.hw.reachable:
            dev.hw.engine = "running"
            dev.hw.irq_enabled = True
        return 0

    def handlers(self) -> Mapping[str, IrqHandler]:
        """One handler stands for those of the services."""
        return {"pcieport.interrupt": self._interrupt}

    def _interrupt(self, k: Kernel, line: int, dev: PciDev) -> str:
        return common.service_config(dev)
