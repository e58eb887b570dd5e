"""Rules on interrupts: lines, descriptors, handlers, messages."""

from quiesce.rules.rule import Rule

RULES = (
    Rule(
        "irq/no-descriptor",
        "MSI is restored through an interrupt number that has no MSI descriptor.",
        "`dev->irq` no longer holds the number that enabling MSI put there. Nothing is wrong until the system "
        "resumes or the device is reset; then the kernel follows a null pointer with interrupts off.",
        "v4.3-rc1 to the last release candidate before the ban; any function whose MSI is on without a driver.",
        ("991de2e59090", "cbbc00be2ce3", "8affb487d4a4", "6c777e8799a9"),
        "iommu-msi-lost",
    ),
    Rule(
        "irq/nobody-cared",
        "A shared level line stays asserted, no handler claims it, and the kernel switches the line off.",
        "The device that asserts has no handler on the line; every other device on it loses its interrupts.",
        "All; brought about by the core up to v4.11, which turned MSI off at shutdown under running devices.",
        ("d52877c7b1af", "fda78d7a0ead", "7c07012eb1be"),
        "msi-off-at-shutdown",
    ),
    Rule(
        "irq/line-dead-for-sharer",
        "A device interrupts on a line that was switched off because of another device.",
        "It is served ten times a second by a poll timer, or not at all: disks and networks hang.",
        "All.",
        (),
        "msi-off-at-shutdown",
    ),
    Rule(
        "irq/storm",
        "A level line stays asserted although a handler claims every interrupt.",
        "The CPU does nothing but interrupts; the spurious detector cannot see it.",
    ),
    Rule(
        "irq/handler-on-freed-data",
        "An interrupt handler runs on data that its driver has given back.",
        "Use after free in interrupt context.",
        example="teach-irq-after-remove",
    ),
    Rule(
        "irq/no-handler-for-vector",
        "A message arrives for a number that was given back.",
        "The interrupt is lost, and the device writes to a vector that the next owner may get.",
    ),
    Rule(
        "irq/remap-fault",
        "A message has no valid entry in the interrupt remapping table.",
        "The remapping unit refuses it: the interrupt is lost and a fault is logged.",
    ),
    Rule(
        "irq/freed-with-action",
        "An interrupt number is given back while a handler is registered on it.",
        "A directory in /proc leaks; the handler stays on a number that something else may get.",
        "v5.17 and later warn; earlier kernels stop in `free_msi_irqs()`.",
        ("9fb9eb4b59ac",),
        example="teach-msi-off-first --kernel v6.12",
    ),
    Rule(
        "irq/free-without-request",
        "A handler is freed that is not registered.",
        "A driver frees twice, or after its number was changed: the handler it meant stays registered.",
        example="teach-double-free",
    ),
    Rule(
        "irq/free-in-interrupt",
        "A handler is freed in interrupt context.",
        "Freeing waits for running handlers, which would be itself.",
    ),
    Rule(
        "irq/unbalanced-enable",
        "A line is enabled more often than it was disabled.",
        "Somebody else's disable is undone: the line fires where its owner relies on silence.",
    ),
    Rule(
        "irq/msi-intx-race",
        "The handlers of one device for its message and for its pin run at the same time.",
        "Drivers rely on the device using one or the other: data that both handlers touch has no lock.",
        "Up to v4.11 at shutdown.",
        ("d52877c7b1af", "fda78d7a0ead"),
        "msi-and-line-race",
    ),
    Rule(
        "irq/msi-into-next-kernel",
        "A device still sends messages with the old kernel's vectors while the next kernel boots.",
        "They arrive on vectors that mean something else by now, or nothing.",
        "kexec with devices whose bus mastering was left on: up to v7.0 those that have no driver any more.",
        ("4fc9bbf98fd6", "d5dea7d95c48"),
        example="msi-into-next-kernel",
    ),
)
