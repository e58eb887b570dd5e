"""Kernel parameters that change isolation (kernel/parameters.py), and what the kernel makes of them."""

from __future__ import annotations

import pytest

from quiesce.groups.predict import predict
from quiesce.kernel.changes import kernel
from quiesce.kernel.parameters import parse_parameters
from quiesce.machine import pci_regs as r
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.read import read_text

PORTS = """
machine ports
00:00.0 host-bridge
00:01.0 root-port bus=01 acs
00:02.0 root-port bus=02 id=8086:1901
00:1c.0 root-port bus=05 id=8086:8d10
00:1c.1 root-port bus=06 id=8086:8d12
01:00.0 switch-up bus=03
02:00.0 endpoint
03:00.0 switch-down bus=04 acs
04:00.0 nvme multifunction
04:00.1 nvme
05:00.0 endpoint
06:00.0 endpoint
iommu intel
"""


def group_of(bdf: str, version: str, *words: str) -> list[str]:
    found = predict(read_text(PORTS, "ports"), kernel(version), parse_parameters(words))
    return next([Bdf[5:] for Bdf in group] for group in found.groups if f"0000:{bdf}" in group)


class TestParsing:
    def test_words_without_meaning_here_are_passed_over(self) -> None:
        assert parse_parameters(["quiet", "root=/dev/sda1", "pci=noaer,realloc"]) == parse_parameters([])

    def test_override(self) -> None:
        found = parse_parameters(["pcie_acs_override=downstream,multifunction,id:8086:1901"])
        assert found.override == {"downstream", "multifunction"}
        assert found.override_ids == {(0x8086, 0x1901)}

    def test_bits_are_read_from_the_right(self) -> None:
        (request,) = parse_parameters(["pci=config_acs=10x@0000:00:1c.0"]).config_acs
        assert (request.set, request.clear) == (r.PCI_ACS_RR, r.PCI_ACS_TB)

    def test_several_entries(self) -> None:
        found = parse_parameters(["pci=noaer,disable_acs_redir=00:01.0;pci:8086:0"])
        assert [spec.text for spec in found.disable_acs_redir] == ["00:01.0", "pci:8086:0"]

    @pytest.mark.parametrize("word", ["intel_iommu=off", "amd_iommu=off", "iommu=off"])
    def test_iommu_off(self, word: str) -> None:
        assert parse_parameters([word]).iommu_off
        assert not parse_parameters(["intel_iommu=on", "iommu=pt"]).iommu_off

    @pytest.mark.parametrize(
        "word", ["pcie_acs_override=all", "pci=config_acs=2@00:01.0", "pci=config_acs=1", "pci=disable_acs_redir=1c"]
    )
    def test_what_the_kernel_would_not_understand(self, word: str) -> None:
        with pytest.raises(BadInput):
            parse_parameters([word])


class TestEffect:
    def test_override_downstream(self) -> None:
        assert group_of("02:00.0", "v6.12") == ["00:02.0", "02:00.0"]
        assert group_of("02:00.0", "v6.12", "pcie_acs_override=downstream") == ["02:00.0"]

    def test_override_spares_functions_with_the_capability(self) -> None:
        words = ("pci=config_acs=0000000@03:00.0", "pcie_acs_override=downstream")
        assert "03:00.0" in group_of("04:00.0", "v6.12", *words)

    def test_override_multifunction(self) -> None:
        assert group_of("04:00.0", "v6.12") == ["04:00.0", "04:00.1"]
        assert group_of("04:00.0", "v6.12", "pcie_acs_override=multifunction") == ["04:00.0"]

    def test_override_by_id(self) -> None:
        assert group_of("02:00.0", "v6.12", "pcie_acs_override=id:8086:1901") == ["02:00.0"]

    @pytest.mark.parametrize(
        ("version", "apart"), [("v4.18", True), ("v4.19", False), ("v6.10", False), ("v6.12", False)]
    )
    def test_disable_acs_redir(self, version: str, apart: bool) -> None:
        found = group_of("04:00.0", version, "pci=disable_acs_redir=03:00.0")
        assert ("03:00.0" not in found) is apart

    @pytest.mark.parametrize(("version", "apart"), [("v6.10", True), ("v6.11", False), ("v7.0", False)])
    def test_config_acs_takes_bits_away(self, version: str, apart: bool) -> None:
        found = group_of("04:00.0", version, "pci=config_acs=x0xx@03:00.0")
        assert ("03:00.0" not in found) is apart

    def test_what_config_acs_leaves_alone_stays_as_firmware_had_it(self) -> None:
        """The kernel's own bits are lost: naming one bit switches the others off."""
        assert "03:00.0" in group_of("04:00.0", "v6.12", "pci=config_acs=xxxxxx1@03:00.0")
        assert "03:00.0" not in group_of("04:00.0", "v6.12", "pci=config_acs=xx111x1@03:00.0")

    def test_a_path_names_a_device(self) -> None:
        assert "03:00.0" in group_of("04:00.0", "v6.12", "pci=config_acs=0000000@00:01.0/00.0/00.0")
        assert "03:00.0" not in group_of("04:00.0", "v6.12", "pci=config_acs=0000000@00:02.0/00.0/00.0")


@pytest.mark.parametrize(
    ("version", "apart"), [("v5.8", True), ("v5.9", False), ("v5.10", True), ("v6.11", False), ("v6.12", True)]
)
def test_kernels_that_lost_the_pch_quirk(version: str, apart: bool) -> None:
    """v5.9 by looking the capability up once, v6.11 by returning early; each was mended in the next release."""
    assert (group_of("05:00.0", version) == ["05:00.0"]) is apart
