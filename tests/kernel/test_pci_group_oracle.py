"""The groups that the model predicts against those that real kernels formed on the same machines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from quiesce.kernel import boot, changes, iommu, iov
from quiesce.kernel.kernel import Kernel
from quiesce.kernel.pci_access import pci_dev_of
from quiesce.machine.build import build_machine
from quiesce.snapshot.description import MachineDescription
from quiesce.snapshot.read import read_machine
from quiesce.world import World

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
RECORDINGS = sorted((DATA / "qemu-groups").glob("*--*--*.json"))
KERNELS = {"510": "v5.10", "61": "v6.1", "612": "v6.12", "72": "v7.2"}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no recordings of real machines in ../shared/data")


def truths() -> dict[str, Any]:
    """Return what is known of the real machines whose listing shows every isolation bit and every group."""
    found = {path.parent: json.loads(path.read_text()) for path in sorted(DATA.glob("machines/*/truth.json"))}
    complete = "capability bits of every function and groups"
    return {str(folder): truth for folder, truth in found.items() if truth["quality"] == complete}


def predicted(description: MachineDescription, version: str, kind: str | None = None) -> list[tuple[str, ...]]:
    world = World()
    k = Kernel(world, build_machine(world, description, kind), changes.kernel(version))
    boot.boot(k)
    enable_virtual_functions(k, description)
    return partition(iommu.groups(k))


def enable_virtual_functions(k: Kernel, description: MachineDescription) -> None:
    """Enable as many virtual functions as the recording shows."""
    shown = {str(item.bdf) for item in description.functions}
    for fn in tuple(k.machine.functions.values()):
        count = sum(str(virtual.bdf) in shown for virtual in fn.virtfns)
        dev = pci_dev_of(k, str(fn.bdf))
        if count and dev is not None:
            assert iov.pci_enable_sriov(k, dev, count) == 0


def partition(groups: Any) -> list[tuple[str, ...]]:
    return sorted(tuple(sorted(group)) for group in groups)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_recording(path: Path) -> None:
    description = read_machine(path)
    assert description.recorded_groups is not None
    version = KERNELS[path.stem.split("--")[1]]
    assert predicted(description, version) == partition(description.recorded_groups)


@pytest.mark.parametrize(("folder", "truth"), truths().items(), ids=[Path(folder).name for folder in truths()])
def test_real_machine(folder: str, truth: dict[str, Any]) -> None:
    release = re.match(r"\d+\.\d+", truth["kernel"])
    assert release is not None
    assert predicted(read_machine(folder), release[0], truth["platform"]) == partition(truth["groups"])


def test_there_is_something_to_compare_with() -> None:
    assert len(RECORDINGS) >= 64
    assert {path.stem.split("--")[1] for path in RECORDINGS} == set(KERNELS)
    assert any(folder.endswith("gigabyte-990fxa-ud3") for folder in truths())
