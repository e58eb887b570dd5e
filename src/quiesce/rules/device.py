"""Rules on what drivers do with their devices."""

from quiesce.rules.rule import Rule

RULES = (
    Rule(
        "device/disabled-twice",
        "A device is disabled more often than it was enabled.",
        "The enable count is wrong from here on: another user's enable is undone.",
    ),
    Rule(
        "device/register-layout",
        "A driver uses a register layout that the hardware does not have at the moment.",
        "Reads give, and writes change, something else; virtio's registers move when MSI-X is switched.",
        "Up to v4.11 at shutdown.",
        ("d52877c7b1af", "fda78d7a0ead"),
        "msi-off-at-shutdown",
    ),
    Rule(
        "device/used-after-reset",
        "A driver's thread uses a device that shutdown has reset, and was not told.",
        "It waits for buffers that never come back, or sets the device up half.",
        example="msi-off-at-shutdown --with virtio-shutdown-callback",
    ),
    Rule(
        "device/unmapped-access",
        "A handler or thread touches registers that are not mapped, before probe has or after remove has ended.",
        "The kernel dies of a page fault.",
        example="teach-irq-before-ready",
    ),
    Rule(
        "device/touched-when-gone",
        "A driver takes the all-ones answer of an absent device for data.",
        "What follows from it is arbitrary.",
    ),
    Rule(
        "device/left-frozen",
        "Recovery fails after a driver has stopped its device for it, and nobody tells the driver.",
        "The device stays stopped until it is removed by hand.",
        "Up to v6.17.",
        ("9011f0667c93",),
    ),
    Rule(
        "device/unlocked-bus-reset",
        "A bus is reset while others may configure the bridge above.",
        "Configuration written meanwhile is lost or lands in a device in reset.",
        "v6.11 and later warn.",
        ("920f6468924f",),
    ),
)
