"""Which functions are isolated from their peers (kernel/pci_acs.py)."""

from __future__ import annotations

import pytest
from toyiommu import toy
from toykernel import device, make_kernel, texts

from quiesce.kernel import changes, pci_acs, pci_acs_enable, pci_probe
from quiesce.kernel.acs_table import ACS_QUIRKS
from quiesce.kernel.kernel import Kernel
from quiesce.machine import pci_regs as r
from quiesce.machine.quirk_tables import DMA_ALIAS_QUIRKS

__all__ = ["toy"]

pytestmark = pytest.mark.usefixtures("toy")

CONTROLS = r.PCI_ACS_SV | r.PCI_ACS_RR | r.PCI_ACS_CR | r.PCI_ACS_UF


def scanned(version: str, machine: str) -> Kernel:
    """Return a kernel that has enumerated the machine and set up no IOMMU."""
    k = make_kernel(version, machine)
    pci_probe.pci_scan(k)
    k.start_event()
    return k


def isolated(k: Kernel, bdf: str) -> bool:
    return pci_acs.pci_acs_enabled(k, device(k, bdf))


# -- is it isolated? ---------------------------------------------------------------------------------------------

TYPES = """
machine types
00:00.0 host-bridge
00:01.0 root-port bus=01 acs
00:02.0 root-port bus=02
00:03.0 integrated id=1234:11ea
00:04.0 integrated id=1234:11ea multifunction
00:04.1 integrated id=1234:11ea
00:05.0 pcie-to-pci bus=05
01:00.0 endpoint
02:00.0 endpoint multifunction
02:00.1 endpoint
05:00.0 conventional
iommu intel
"""


class TestAcsEnabled:
    @pytest.mark.parametrize(
        ("bdf", "expected", "why"),
        [
            ("00:00.0", False, "a conventional function never is"),
            ("00:01.0", True, "a port with all controls on"),
            ("00:02.0", False, "a port without the capability"),
            ("00:03.0", True, "a single function needs no capability"),
            ("00:04.0", False, "one of several functions needs it"),
            ("00:04.1", False, "a function above 0 is one of several, whatever its header says"),
            ("00:05.0", False, "a bridge to conventional PCI never is"),
            ("01:00.0", True, "an endpoint alone in its slot"),
            ("02:00.0", False, "an endpoint that is not"),
        ],
    )
    def test_by_type(self, bdf: str, expected: bool, why: str) -> None:
        assert isolated(scanned("v6.12", TYPES), bdf) == expected, why

    def test_a_control_that_is_not_offered_counts_as_on(self) -> None:
        machine = "00:01.0 root-port bus=01 acs=RR,CR,UF\n01:00.0 endpoint\niommu intel\n"
        assert isolated(scanned("v6.12", machine), "00:01.0")

    def test_before_v3_12_it_counted_as_off(self) -> None:
        machine = "00:01.0 root-port bus=01 acs=RR,CR,UF\n01:00.0 endpoint\niommu intel\n"
        assert not isolated(scanned("v3.11", machine), "00:01.0")
        assert isolated(scanned("v3.12", machine), "00:01.0")

    def test_before_v3_12_functions_were_not_asked_for_source_validation(self) -> None:
        machine = "00:01.0 endpoint acs=RR,CR multifunction\n00:01.1 endpoint acs=RR,CR\n00:05.0 pcie-to-pci bus=05\n"
        machine += "iommu intel\n"
        assert isolated(scanned("v3.6", machine), "00:01.0")
        assert isolated(scanned("v3.6", machine), "00:05.0"), "bridges were judged like single functions"
        assert not isolated(scanned("v3.6", TYPES), "02:00.1")

    def test_nothing_is_switched_on_without_an_iommu(self) -> None:
        k = scanned("v6.12", TYPES.replace("iommu intel\n", ""))
        assert device(k, "00:01.0").hw.acs_control & CONTROLS == 0
        assert not isolated(k, "00:01.0")

    def test_a_disconnected_device_reads_as_ones_and_passes(self) -> None:
        k = scanned("v6.12", TYPES.replace("iommu intel\n", ""))
        device(k, "00:01.0").disconnected = True
        assert isolated(k, "00:01.0")

    def test_path(self) -> None:
        k = scanned("v6.12", TYPES)
        port, end = device(k, "00:01.0"), device(k, "01:00.0")
        assert pci_acs.pci_acs_path_enabled(k, end)
        assert pci_acs.pci_acs_path_enabled(k, end, port)
        assert not pci_acs.pci_acs_path_enabled(k, end, device(k, "00:02.0"))
        assert not pci_acs.pci_acs_path_enabled(k, device(k, "02:00.0"))

    def test_virtual_functions_are_never_multifunction(self) -> None:
        k = scanned("v6.12", "00:01.0 root-port bus=01\n01:00.0 igb sriov=2\niommu intel\n")
        assert not any(pci_acs.pci_multifunction(dev) for dev in k.system.devices if dev.is_virtfn)


class TestWhenItIsSwitchedOn:
    def test_at_enumeration(self) -> None:
        assert device(scanned("v6.19", TYPES), "00:01.0").hw.acs_control & CONTROLS == CONTROLS

    def test_v7_0_when_dma_is_configured(self) -> None:
        k = scanned("v7.0", TYPES)
        dev = device(k, "00:01.0")
        pci_acs_enable.pci_acs_init(k, dev)
        assert dev.hw.acs_control & CONTROLS == 0
        pci_acs_enable.pci_enable_acs(k, dev)
        assert dev.hw.acs_control & CONTROLS == CONTROLS

    def test_init_before_v7_0(self) -> None:
        k = make_kernel("v6.12", TYPES)
        pci_probe.pci_scan(k)
        dev = device(k, "00:01.0")
        dev.hw.config.set("ACS_CTRL", 0)
        pci_acs_enable.pci_acs_init(k, dev)
        assert dev.hw.acs_control & CONTROLS == CONTROLS


# -- quirks ------------------------------------------------------------------------------------------------------

SOUTHBRIDGE = """
00:14.0 conventional id=1002:4385 multifunction
00:14.2 conventional id=1002:4383
00:14.6 conventional id=1002:1111
"""
PCH = """
machine pch
00:1c.0 root-port id=8086:1c10 bus=01 multifunction
00:1c.1 root-port id=8086:1c12 bus=02
01:00.0 endpoint
02:00.0 endpoint
iommu intel
"""


class TestQuirks:
    def test_every_entry_is_a_change_and_has_an_answer(self) -> None:
        for quirk in (*ACS_QUIRKS, *DMA_ALIAS_QUIRKS):
            assert changes.find(quirk.change).since == quirk.since
        assert {quirk.kind for quirk in ACS_QUIRKS} == set(pci_acs._ANSWERS)

    def test_southbridge_functions_are_apart_only_next_to_an_amd_iommu(self) -> None:
        amd, intel = SOUTHBRIDGE + "iommu amd\n", SOUTHBRIDGE + "iommu intel\n"
        assert isolated(scanned("v6.0", amd), "00:14.0")
        assert not isolated(scanned("v6.0", amd), "00:14.6")
        assert not isolated(scanned("v6.0", intel), "00:14.0")
        assert not isolated(scanned("v3.8", amd), "00:14.0")

    def test_integrated_endpoints_of_intel(self) -> None:
        machine = "00:04.0 integrated id=8086:1903 multifunction\n00:04.1 integrated id=8086:1904\niommu intel\n"
        assert not isolated(scanned("v5.7", machine), "00:04.1")
        assert isolated(scanned("v5.8", machine), "00:04.1")

    @pytest.mark.parametrize(
        ("version", "expected"), [("v3.13", False), ("v6.10", True), ("v6.11", False), ("v6.12", True), ("v7.0", False)]
    )
    def test_pch_root_ports(self, version: str, expected: bool) -> None:
        """v6.11 skipped the quirk for want of a capability; v7.0 has not enabled anything at this point."""
        assert isolated(scanned(version, PCH), "00:1c.0") == expected

    def test_pch_quirk_says_so(self) -> None:
        k = make_kernel("v6.12", PCH)
        pci_probe.pci_scan(k)
        assert "pci 0000:00:1c.0: Intel PCH root port ACS workaround enabled" in texts(k, "info")

    def test_sunrise_point_has_its_controls_elsewhere(self) -> None:
        machine = "00:1c.0 root-port id=8086:a110 bus=01 acs\n01:00.0 endpoint\niommu intel\n"
        k = scanned("v6.12", machine)
        assert isolated(k, "00:1c.0")
        assert device(k, "00:1c.0").hw.acs_control & CONTROLS == 0
        assert isolated(scanned("v4.4", machine), "00:1c.0"), "before, the standard place was believed"
        without = "00:1c.0 root-port id=8086:a110 bus=01\n01:00.0 endpoint\niommu intel\n"
        assert not isolated(scanned("v6.12", without), "00:1c.0")

    @pytest.mark.parametrize(
        ("kind", "ids", "version", "expected"),
        [
            ("endpoint", "1924:0903", "v4.1", True),
            ("endpoint", "14e4:16d7", "v5.13", False),
            ("endpoint", "14e4:16d7", "v5.14", True),
            ("endpoint", "8088:1001", "v6.4", False),
            ("endpoint", "8088:1001", "v6.5", True),
            ("endpoint", "8088:4242", "v6.5", False),
        ],
    )
    def test_multifunction_endpoints(self, kind: str, ids: str, version: str, expected: bool) -> None:
        machine = f"00:04.0 {kind} id={ids} multifunction\n00:04.1 {kind} id={ids}\niommu intel\n"
        assert isolated(scanned(version, machine), "00:04.0") == expected

    def test_a_vendor_wide_entry_says_no_to_a_single_function_too(self) -> None:
        machine = "00:04.0 endpoint id=8088:4242\niommu intel\n"
        assert isolated(scanned("v6.4", machine), "00:04.0")
        assert not isolated(scanned("v6.5", machine), "00:04.0")

    @pytest.mark.parametrize(
        ("ids", "acs", "expected"),
        [("1d17:0721", "", True), ("1d17:0999", "acs", False), ("177d:a001", "", True), ("177d:1234", "", False)],
    )
    def test_root_ports(self, ids: str, acs: str, expected: bool) -> None:
        machine = f"00:04.0 root-port id={ids} bus=01 {acs}\n01:00.0 endpoint\niommu intel\n"
        assert isolated(scanned("v6.12", machine), "00:04.0") == expected

    def test_endpoints_of_a_vendor_with_a_port_quirk(self) -> None:
        machine = (
            "00:04.0 endpoint id=1d17:0721\n00:05.0 endpoint id=177d:a001\n00:06.0 endpoint id=17cb:0400\niommu intel\n"
        )
        k = scanned("v6.12", machine)
        assert [isolated(k, bdf) for bdf in ("00:04.0", "00:05.0", "00:06.0")] == [True, True, True]
