"""Rules on MSI bookkeeping."""

from quiesce.rules.rule import Rule

RULES = (
    Rule(
        "msi/disabled-with-action",
        "MSI is switched off while a handler is registered on one of its vectors.",
        "The kernel stops with BUG_ON.",
        "Up to v5.16.",
        ("9fb9eb4b59ac",),
        example="teach-msi-off-first",
    ),
    Rule(
        "msi/data-freed-with-vectors",
        "A driver leaves MSI on; the managed MSI data goes without it.",
        "`msi_enabled` stays set with nothing behind it: the next owner cannot enable MSI, and disabling it crashes.",
        "v5.17 and later.",
        ("3f35d2cf9fbc",),
        "teach-leaky-msi",
    ),
    Rule(
        "msi/enabled-twice",
        "MSI is enabled while it is on already.",
        "An earlier owner left it on; the new one gets -EINVAL and falls back to the line, or fails.",
        example="teach-leaky-msi",
    ),
    Rule(
        "msi/enabled-without-vectors",
        "MSI counts as enabled while the kernel has no vectors for it.",
        "Switching it off follows a null pointer.",
        "v5.17 and later.",
        ("3f35d2cf9fbc",),
        example="teach-leaky-msi",
    ),
    Rule(
        "msi/foreign-descriptor",
        "Restoring MSI finds the descriptor of another device behind `dev->irq`.",
        "The wrong message is written: one device is silent, the other gets interrupts that are not its own.",
    ),
)
