"""Recovery from errors (drivers/pci/pcie/err.c)."""

from __future__ import annotations

import pytest
from pci_machine import NIC, PORT, believe, description, device, endpoint, found, make_kernel, printed

from quiesce.kernel import aer, pci
from quiesce.kernel.driver import PciDriver
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.objects import PciDev

SECOND = "0000:01:00.1"


class Aware(PciDriver):
    """A driver with all callbacks, which says what it is asked; ``answers`` are its votes by callback."""

    name = "aware"
    error_handlers = True

    def __init__(self, **answers: str) -> None:
        self.answers = answers

    def error_detected(self, k: Kernel, dev: PciDev, state: str) -> str:
        k.printk("info", f"error_detected {state}")
        default = aer.NEED_RESET if state == aer.FROZEN else aer.CAN_RECOVER
        return self.answers.get("error_detected", default)

    def mmio_enabled(self, k: Kernel, dev: PciDev) -> str:
        k.printk("info", "mmio_enabled")
        return self.answers.get("mmio_enabled", aer.RECOVERED)

    def slot_reset(self, k: Kernel, dev: PciDev) -> str:
        k.printk("info", f"slot_reset while {dev.error_state}")
        return self.answers.get("slot_reset", aer.RECOVERED)

    def resume_after_error(self, k: Kernel, dev: PciDev) -> None:
        k.printk("info", "resume")


def prepared(version: str, driver: PciDriver, *, second: bool = False) -> tuple[Kernel, PciDev]:
    more = {SECOND: endpoint(0x8086, 0x10C9, 0x020000, express=True)} if second else {}
    k = make_kernel(version, driver, machine=description(**more))
    believe(k)
    nic = device(k, NIC)
    nic.driver = driver.name
    pci.pci_enable_device(k, nic)
    nic.hw.engine = "running"
    return k, nic


class TestRecovery:
    def test_non_fatal(self) -> None:
        k, nic = prepared("v6.12", Aware())
        assert aer.pcie_do_recovery(k, nic, aer.NORMAL) == aer.RECOVERED
        done = f"pcieport {PORT}: AER: device recovery successful"
        assert printed(k) == ["error_detected normal", "mmio_enabled", "resume", done]
        assert nic.hw.engine == "running"

    @pytest.mark.parametrize(("version", "state"), [("v6.17", "frozen"), ("v6.18", "normal")])
    def test_fatal_resets_the_link(self, version: str, state: str) -> None:
        k, nic = prepared(version, Aware())
        assert aer.pcie_do_recovery(k, nic, aer.FROZEN) == aer.RECOVERED
        done = f"pcieport {PORT}: AER: device recovery successful"
        assert printed(k) == ["error_detected frozen", f"slot_reset while {state}", "resume", done]
        assert (nic.hw.engine, nic.error_state) == ("off", "normal")

    @pytest.mark.parametrize(("version", "engine"), [("v6.17", "running"), ("v6.18", "off")])
    def test_a_driver_that_asks_for_a_reset_gets_one(self, version: str, engine: str) -> None:
        k, nic = prepared(version, Aware(error_detected=aer.NEED_RESET))
        assert aer.pcie_do_recovery(k, nic, aer.NORMAL) == aer.RECOVERED
        assert nic.hw.engine == engine

    @pytest.mark.parametrize(("version", "engine"), [("v6.17", "off"), ("v6.18", "running")])
    def test_whether_a_fatal_error_resets_the_link_before_mmio_enabled(self, version: str, engine: str) -> None:
        class Looks(Aware):
            def mmio_enabled(self, k: Kernel, dev: PciDev) -> str:
                k.printk("info", f"mmio_enabled while {dev.hw.engine}")
                return aer.RECOVERED

        k, nic = prepared(version, Looks(error_detected=aer.CAN_RECOVER))
        assert aer.pcie_do_recovery(k, nic, aer.FROZEN) == aer.RECOVERED
        assert f"mmio_enabled while {engine}" in printed(k)
        assert nic.hw.engine == "off"

    def test_an_error_of_the_port_itself_concerns_what_is_below(self) -> None:
        k, _ = prepared("v6.12", Aware())
        assert aer.pcie_do_recovery(k, device(k, PORT), aer.NORMAL) == aer.RECOVERED
        assert "error_detected normal" in printed(k)

    def test_a_disconnected_device_is_not_asked(self) -> None:
        k, nic = prepared("v6.12", Aware())
        nic.disconnected = True
        assert aer.pcie_do_recovery(k, nic, aer.NORMAL) == aer.DISCONNECT
        assert printed(k) == [f"pcieport {PORT}: AER: device recovery failed"]


class TestVeto:
    def test_a_driverless_function_below_vetoes(self) -> None:
        k, nic = prepared("v6.12", Aware(), second=True)
        assert aer.pcie_do_recovery(k, nic, aer.NORMAL) == aer.DISCONNECT
        assert f"pci {SECOND}: AER: can't recover (no error_detected callback)" in printed(k)

    @pytest.mark.parametrize(("version", "told", "rules"), [("v6.17", 0, ["device/left-frozen"]), ("v6.18", 1, [])])
    def test_whether_the_driver_hears_of_the_failure(self, version: str, told: int, rules: list[str]) -> None:
        k, nic = prepared(version, Aware(), second=True)
        assert aer.pcie_do_recovery(k, nic, aer.FROZEN) == aer.DISCONNECT
        assert printed(k).count("error_detected perm_failure") == told
        assert (found(k), nic.error_state) == (rules, "frozen")

    def test_no_veto_no_finding(self) -> None:
        k, nic = prepared("v6.17", Aware())
        aer.pcie_do_recovery(k, nic, aer.FROZEN)
        assert found(k) == []

    def test_a_driver_that_gives_up_at_slot_reset(self) -> None:
        k, nic = prepared("v6.12", Aware(slot_reset=aer.DISCONNECT))
        assert aer.pcie_do_recovery(k, nic, aer.FROZEN) == aer.DISCONNECT
        assert found(k) == ["device/left-frozen"]

    def test_a_driver_that_only_says_it_has_handlers(self) -> None:
        class Plain(PciDriver):
            name = "plain"
            error_handlers = True

        k, nic = prepared("v6.12", Plain())
        assert aer.pcie_do_recovery(k, nic, aer.FROZEN) == aer.RECOVERED
