"""Devices that a kernel treats in a special way when user space gets them: reset, INTx masking, denylist of vfio-pci
(drivers/pci/quirks.c, drivers/vfio/pci/vfio_pci.c, vfio_pci_core.c).

Read in the trees of 5.10, 6.1, 6.12 and 7.2 as distributions ship them. What the oldest of them has, older kernels are
taken to have too; what came to a stable tree by a backport counts from that series on. Both err on the side of warning.
"""

from __future__ import annotations

from quiesce.machine.quirk_tables import read_quirks

HANDOVER_QUIRKS = read_quirks(__file__, "handover_quirks.csv")
