"""quiesce: an executable model of how Linux binds, interrupts, isolates and removes PCI devices."""

__version__ = "0.1.0"
