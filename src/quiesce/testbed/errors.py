"""What can keep a life from being tried on a real kernel, or end it."""


class Skipped(Exception):
    """It cannot be tried here; the text is the reason. Never counts as agreement."""


class GuestGone(Exception):
    """The guest no longer answers; the text ends with the last lines of its console."""

    def __init__(self, what: str, console: str = "") -> None:
        super().__init__(f"{what}\n{console}" if console else what)
        self.what = what
        self.console = console


class GuestDied(GuestGone):
    """The kernel panicked, or QEMU or the agent in the guest ended."""


class GuestHung(GuestGone):
    """A deadline passed; the guest is still there but did not answer."""
