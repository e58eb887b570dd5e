"""Rules on contexts, memory and waiting."""

from quiesce.rules.rule import Rule

RULES = (
    Rule(
        "context/sleep-in-atomic",
        "Something that may sleep runs under a spinlock or in an interrupt.",
        "Under memory pressure the allocation sleeps with the lock held: the machine locks up.",
        "v6.11-rc2 to v6.11-rc7 for INTx masking by vfio-pci after a managed driver.",
        ("25216afc9db5", "fc8c818e7569", "dfa2f4d5f9e5"),
        "managed-outlives-driver",
    ),
    Rule(
        "context/dma-free-irqs-off",
        "A coherent buffer is freed with interrupts off.",
        "Freeing may have to sleep.",
    ),
    Rule(
        "memory/use-after-free",
        "A structure is used before it exists or after it was given back.",
        "Whatever lies there by then is read or overwritten.",
    ),
    Rule(
        "memory/refcount",
        "A reference is dropped that is not held.",
        "The structure goes while others still use it.",
    ),
    Rule(
        "memory/dma-into-next-kernel",
        "A device can still write to memory when the next kernel boots.",
        "It overwrites whatever that kernel puts there.",
        "kexec with devices whose bus mastering was left on.",
        ("b566a22c2332", "7897e6022761", "4fc9bbf98fd6"),
        example="bus-master-through-kexec",
    ),
    Rule(
        "wait/self-deadlock",
        "A task waits for a lock that it holds itself.",
        "It waits for ever, and everybody behind it.",
    ),
    Rule(
        "wait/deadlock",
        "Two tasks wait for each other.",
        "Both wait for ever; the lock that removal holds stops every later hot-plug.",
    ),
    Rule(
        "wait/own-interrupt-handler",
        "An interrupt handler waits until it has ended itself.",
        "The CPU never comes back.",
    ),
    Rule(
        "wait/gone-device",
        "A driver waits for the answer of a device that is gone.",
        "Removal never ends and holds its locks.",
        "virtio up to v5.13.",
        ("43bb40c5b926",),
        example="virtio-gone",
    ),
)
