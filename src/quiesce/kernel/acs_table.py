"""The devices whose isolation the kernel knows better than their ACS capability says (drivers/pci/quirks.c)."""

from __future__ import annotations

from quiesce.machine.quirk_tables import read_quirks

ACS_QUIRKS = read_quirks(__file__, "acs_quirks.csv")
"""In the order in which the kernel asks them; the first that has an answer wins."""
