import pytest

from quiesce.explore.model import Outcome
from quiesce.kernel.kernel import Finding, Message
from quiesce.testbed.messages import (
    Listener,
    alarms,
    alarms_in,
    classify,
    model_alarms,
    taint_after,
    taint_text,
)

WARNING = """[    5.1] ------------[ cut here ]------------
[    5.1] Trying to free already-free IRQ 17
[    5.1] WARNING: CPU: 0 PID: 61 at kernel/irq/manage.c:1893 free_irq+0x2a1/0x3d0
[    5.1] Modules linked in: ahci libahci
[    5.1] RIP: 0010:free_irq+0x2a1/0x3d0
[    5.1] Call Trace:
[    5.1]  <TASK>
[    5.1] ---[ end trace 0000000000000000 ]---""".splitlines()

PLAIN_WARNING = """------------[ cut here ]------------
WARNING: CPU: 0 PID: 70 at drivers/pci/msi/api.c:41 pci_enable_msi_range+0x20/0x40
RIP: 0010:pci_enable_msi_range+0x20/0x40
Call Trace:
---[ end trace 0000000000000000 ]---""".splitlines()

NEW_WARNING = """------------[ cut here ]------------
WARNING: drivers/iommu/iommu.c:3105 at iommu_device_unuse_default_domain+0x3b/0x50, CPU#0: sh/70
RIP: 0010:iommu_device_unuse_default_domain+0x3b/0x50
Call Trace:
---[ end trace 0000000000000000 ]---""".splitlines()

OOPS = """BUG: kernel NULL pointer dereference, address: 0000000000000008
#PF: supervisor read access in kernel mode
Oops: 0000 [#1] PREEMPT SMP NOPTI
CPU: 0 PID: 62 Comm: sh Not tainted 6.1.0
RIP: 0010:__pci_write_msi_msg+0x1d/0x140
Call Trace:
 <TASK>
 __pci_restore_msi_state+0x3c/0x60
---[ end trace 0000000000000000 ]---
RIP: 0010:__pci_write_msi_msg+0x1d/0x140
note: sh[62] exited with irqs disabled""".splitlines()

KERNEL_BUG = """------------[ cut here ]------------
kernel BUG at drivers/pci/msi.c:376!
invalid opcode: 0000 [#1] SMP NOPTI
RIP: 0010:free_msi_irqs+0x19c/0x1a0
Call Trace:
---[ end trace 3f1ad5cb6a3a31a3 ]---
Kernel panic - not syncing: Fatal exception""".splitlines()

ORDINARY = (
    "pci 0000:01:00.0: Adding to iommu group 5",
    "e1000e 0000:01:00.0: enabling device (0140 -> 0142)",
    "vfio-pci 0000:01:00.0: vgaarb: pci_notify",
    "pcieport 0000:00:04.0: PME: Signaling with IRQ 25",
    "DMAR: DRHD: handling fault status reg 2",
    "DMA-API: preallocated 65536 debug entries",
    "ahci 0000:00:1f.2: AHCI 0001.0000 32 slots 6 ports 1.5 Gbps 0x3f impl SATA mode",
)


@pytest.mark.parametrize("line", ORDINARY)
def test_the_ordinary_course_is_no_alarm(line: str) -> None:
    assert classify(line) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "ahci: probe of 0000:00:1f.2 failed with error -12",
            "ahci 0000:00:1f.2: probe with driver ahci failed with error -12",
        ),
        ("do_IRQ: 0.37 No irq handler for vector", "__common_interrupt: 0.37 No irq handler for vector"),
        ("pcieport 0000:00:1c.0: AER: device recovery failed", "pcieport 0000:00:1c.0: AER: device recovery failed"),
        ("WARNING: drivers/pci/msi.c: pci_enable_msi_range", PLAIN_WARNING[1]),
        ("WARNING: at drivers/iommu/iommu.c iommu_device_unuse_default_domain", NEW_WARNING[1]),
        (
            "DMAR: [DMA Write] Request device [00:05.0] fault addr 1000 [fault reason 05]",
            "DMAR: [DMA Write NO_PASID] Request device [00:05.0] fault addr 0x1000 [fault reason 0x05]",
        ),
    ],
)
def test_wordings_of_all_versions_and_of_the_model_are_one_class(old: str, new: str) -> None:
    assert classify(old) == classify(new) is not None


@pytest.mark.parametrize(
    ("block", "kind", "where"),
    [
        (WARNING, "free-irq-twice", "free_irq"),
        (PLAIN_WARNING, "warn:msi", "pci_enable_msi_range"),
        (NEW_WARNING, "warn:iommu", "iommu_device_unuse_default_domain"),
        (OOPS, "oops", "__pci_write_msi_msg"),
    ],
)
def test_a_stack_trace_is_one_alarm_with_its_function(block: list[str], kind: str, where: str) -> None:
    (alarm,) = alarms([*ORDINARY, *block, *ORDINARY])
    assert (alarm.kind, alarm.where) == (kind, where)


def test_a_bug_that_panics_is_two() -> None:
    assert [alarm.kind for alarm in alarms(KERNEL_BUG)] == ["bug", "panic"]
    assert alarms(KERNEL_BUG)[0].where == "free_msi_irqs"


def test_two_traces_are_told_apart() -> None:
    assert alarms_in([*WARNING, *OOPS]) == "free-irq-twice oops"
    assert alarms_in([*WARNING[:-1], *OOPS]) == "free-irq-twice oops"
    assert alarms_in([]) == "none"


def _outcome(*outputs: Message | Finding, crashed: bool = False) -> Outcome:
    return Outcome(True, None, crashed, "", outputs)


def test_the_model_gives_the_same_classes() -> None:
    warned = _outcome(Message("WARN", "Trying to free already-free IRQ 17"), Finding("irq/free-without-request", "why"))
    crashed = _outcome(
        Message("BUG", "kernel BUG at drivers/pci/msi.c! BUG_ON(irq_has_action)"),
        Finding("msi/disabled-with-action", "why"),
        crashed=True,
    )
    assert [alarm.kind for alarm in model_alarms(warned)] == ["free-irq-twice"]
    assert [alarm.kind for alarm in model_alarms(crashed)] == ["bug"]


def test_a_crash_without_words_is_an_oops() -> None:
    silent = _outcome(Finding("memory/use-after-free", "why", "free_irq"), crashed=True)
    assert [alarm.kind for alarm in model_alarms(silent)] == ["oops"]


def test_findings_alone_make_no_noise() -> None:
    assert model_alarms(_outcome(Finding("devres/created-during-detach", "why"), Message("window", "x: unbind"))) == []


def test_some_complaints_need_a_debugging_kernel() -> None:
    sleeping = _outcome(Message("err", "BUG: sleeping function called from invalid context"))
    assert model_alarms(sleeping) == []
    assert [alarm.kind for alarm in model_alarms(sleeping, instrumented=True)] == ["sleeping-in-atomic"]


def test_a_warning_is_heard_once_and_other_complaints_each_time() -> None:
    listener = Listener()
    both = alarms([*PLAIN_WARNING, "vfio-pci 0000:00:05.0: Relaying device request to user (#0)"])
    assert [alarm.kind for alarm in listener.hear(both)] == ["warn:msi", "device-request"]
    assert [alarm.kind for alarm in listener.hear(both)] == ["device-request"]


def test_marks_of_the_kernel_follow_from_its_complaints() -> None:
    assert taint_after("none", alarms(PLAIN_WARNING)) == taint_text(1 << 9 | 1 << 12) == "W"
    assert taint_after("W", alarms(OOPS)) == taint_text(1 << 9 | 1 << 7) == "DW"
    assert taint_after("none", alarms(ORDINARY)) == taint_text(1 << 12) == "none"
