"""Rules on devices in the hands of user space."""

from quiesce.rules.rule import Rule

RULES = (
    Rule(
        "vfio/foreign-bind",
        "A kernel driver is bound into an IOMMU group that user space uses.",
        "The kernel stops with BUG_ON rather than let both reach each other's memory.",
        "Up to v5.18; from v5.19 on the bind is refused.",
        ("512881eacfa7", "3b86f317c9c7"),
        "vfio-foreign-bind",
    ),
    Rule(
        "vfio/close-without-reset",
        "A device that its user left running is closed without a reset.",
        "The next driver finds it active, with DMA and interrupts of somebody else.",
    ),
    Rule(
        "vfio/access-while-decode-off",
        "User space reaches a device's memory while its decoding is off.",
        "Some platforms stop the machine for it.",
        "Up to v5.7.",
        ("abafbc551fdd",),
        example="vfio-decode-off",
    ),
    Rule(
        "vfio/intx-mask-disagrees",
        "vfio-pci and the device disagree on whether INTx is masked.",
        "The guest never hears the device again, or the host gets an interrupt that it takes for masked.",
        example="managed-outlives-driver --with vfio-intx-outside-lock",
    ),
    Rule(
        "vfio/intx-stuck",
        "A line was disabled twice and enabled once.",
        "The device is never heard again.",
        "Up to v6.17 for lines masked at the interrupt controller.",
        ("8b9f128947dd", "fe9a7082684e"),
    ),
    Rule(
        "vfio/null-eventfd",
        "INTx is signalled after user space has taken its eventfd away.",
        "The kernel follows a null pointer in the interrupt handler.",
        "Up to v6.8.",
        ("18c198c96a81", "810cd4bb5345"),
        example="vfio-null-eventfd",
    ),
)
