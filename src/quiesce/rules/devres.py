"""Rules on managed resources."""

from quiesce.rules.rule import Rule

RULES = (
    Rule(
        "devres/created-during-detach",
        "A managed resource is created while its driver is being detached.",
        "The list of records has been taken away to be released; the new record stays and belongs to nobody.",
        "v6.11-rc1.",
        ("25216afc9db5", "00f89ae4e759", "dfa2f4d5f9e5"),
        "intx-devres-on-detach",
    ),
    Rule(
        "devres/leftover-at-probe",
        "A device that is to be bound still has managed resources of somebody before.",
        "From v5.6 on no driver can be bound to it (-EBUSY); before, the new driver inherited them.",
        "All; the refusal came with v5.6.",
        ("7c35e699c88b", "25216afc9db5", "3f35d2cf9fbc"),
        "intx-devres-on-detach",
    ),
    Rule(
        "devres/wrong-intx-restore",
        "Detaching leaves INTx disable in a state in which the driver did not find it.",
        "The next driver finds its interrupts off, or a line open that nobody handles.",
        "v6.11 to v6.13.",
        ("25216afc9db5", "d555ed45a5a1"),
        example="intx-restore-wrong",
    ),
)
