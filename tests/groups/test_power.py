"""Groups by partitionable endpoints (groups/power.py)."""

from __future__ import annotations

from quiesce.groups.predict import predict
from quiesce.kernel.changes import kernel
from quiesce.snapshot.read import read_text

MACHINE = """
machine power
00:00.0 root-port bus=01
01:00.0 nvme multifunction
01:00.1 nvme
0001:00:00.0 root-port bus=01
0001:01:00.0 pcie-to-pci bus=02
0001:02:00.0 conventional
0001:02:01.0 pci-bridge bus=03
0001:03:00.0 conventional
"""


def test_a_bus_is_a_group_and_ports_have_none() -> None:
    found = predict(read_text(MACHINE, "power"), kernel("v6.12"), iommu="power")
    assert found.groups == (
        ("0000:01:00.0", "0000:01:00.1"),
        ("0001:02:00.0", "0001:02:01.0", "0001:03:00.0"),
    )
    assert found.ungrouped == ("0000:00:00.0", "0001:00:00.0", "0001:01:00.0")
