from quiesce.testbed.interrupts import handlers_on, parse_interrupts

ONE_CPU = """           CPU0
  0:        273  IR-IO-APIC   2-edge      timer
 16:          3  IR-IO-APIC  16-fasteoi   ahci[0000:00:1f.2], vfio-intx(0000:00:05.0)
 24:          0  DMAR-MSI   0-edge      dmar0
 25:          0  IR-PCI-MSIX-0000:00:04.0   0-edge      PCIe PME, aerdrv
 26:          0  PCI-MSI 81920-edge
NMI:          0   Non-maskable interrupts
ERR:          0
"""
TWO_CPUS = """            CPU0       CPU1
  27:         12          5   PCI-MSI 409600-edge      nvme0q0
"""


def test_names_of_handlers_may_hold_blanks_and_share_a_number() -> None:
    lines = parse_interrupts(ONE_CPU)
    assert lines[25].handlers == ("PCIe PME", "aerdrv")
    assert lines[16].handlers == ("ahci[0000:00:1f.2]", "vfio-intx(0000:00:05.0)")
    assert lines[16].chip == "IR-IO-APIC"
    assert lines[0].times == 273


def test_a_number_without_handler_has_none() -> None:
    lines = parse_interrupts(ONE_CPU)
    assert [handlers_on(lines, irq) for irq in (16, 24, 25, 26, 99)] == [2, 1, 2, 0, 0]


def test_counts_of_all_processors_are_added() -> None:
    line = parse_interrupts(TWO_CPUS)[27]
    assert (line.times, line.chip, line.handlers) == (17, "PCI-MSI", ("nvme0q0",))


def test_nothing_is_no_lines() -> None:
    assert parse_interrupts("") == {}
