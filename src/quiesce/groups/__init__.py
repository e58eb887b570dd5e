"""Which IOMMU groups a kernel forms on a machine that is known from a snapshot, why, and what would change them.

The algorithm is the running model's own (``kernel.pci_group``, ``kernel.pci_acs``); here it runs on light objects that
need no world, so that large machines take little time, and on machines of which the snapshot leaves something out, so
that every grouping that is still possible comes out.
"""
