"""Groups predicted on light objects against those that real kernels formed, and against the running model."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quiesce.groups.predict import predict
from quiesce.kernel.changes import kernel
from quiesce.snapshot.read import read_machine, read_text

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
RECORDINGS = sorted((DATA / "qemu-groups").glob("*--*--*.json"))
KERNELS = {"510": "v5.10", "61": "v6.1", "612": "v6.12", "72": "v7.2"}
COMPLETE = "capability bits of every function and groups"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no recordings of real machines in ../shared/data")


def truths() -> dict[str, Any]:
    found = {path.parent: json.loads(path.read_text()) for path in sorted(DATA.glob("machines/*/truth.json"))}
    return {str(folder): truth for folder, truth in found.items() if truth["quality"] == COMPLETE}


def partition(groups: Any) -> list[tuple[str, ...]]:
    return sorted(tuple(sorted(group)) for group in groups)


@needs_data
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_recording(path: Path) -> None:
    description = read_machine(path)
    found = predict(description, kernel(KERNELS[path.stem.split("--")[1]]))
    assert description.recorded_groups is not None
    assert partition(found.groups) == partition(description.recorded_groups)
    assert found.undecided == ()


@needs_data
@pytest.mark.parametrize(("folder", "truth"), truths().items(), ids=[Path(folder).name for folder in truths()])
def test_real_machine(folder: str, truth: dict[str, Any]) -> None:
    release = re.match(r"\d+\.\d+", truth["kernel"])
    assert release is not None
    found = predict(read_machine(folder), kernel(release[0]), iommu=truth["platform"])
    assert partition(found.groups) == partition(truth["groups"])
    assert found.undecided == ()


PORTS = "00:00.0 host-bridge\n00:1c.0 root-port bus=01 acs\n00:1c.1 root-port bus=02\n01:00.0 endpoint\n02:00.0 nvme\n"


def test_no_iommu_no_groups() -> None:
    found = predict(read_text(PORTS, "ports"), kernel("v6.12"), iommu="none")
    assert found.groups == ()
    assert "0000:01:00.0" in found.ungrouped


def test_a_description_without_an_iommu_has_none() -> None:
    assert predict(read_text(PORTS, "ports"), kernel("v6.12")).groups == ()
    assert predict(read_text(PORTS, "ports"), kernel("v6.12"), iommu="intel").groups != ()


def test_a_port_without_acs_takes_what_is_below() -> None:
    found = predict(read_text(PORTS + "iommu intel\n", "ports"), kernel("v6.12"))
    assert ("0000:00:1c.1", "0000:02:00.0") in found.groups
    assert ("0000:01:00.0",) in found.groups


class TestBefore317:
    PHANTOM = (
        "00:00.0 host-bridge\n00:03.0 conventional\n00:04.0 conventional\niommu amd\nalias 00:03.0-00:04.0 -> 00:1f.7\n"
    )

    def test_the_drivers_had_searches_of_their_own(self) -> None:
        """One phantom alias made one group from v3.8 on, and two since the common search."""
        together = ("0000:00:03.0", "0000:00:04.0")
        machine = read_text(self.PHANTOM, "phantom")
        assert together in predict(machine, kernel("v3.10")).groups
        assert together not in predict(machine, kernel("v3.18")).groups

    def test_no_guess_on_an_incomplete_dump(self) -> None:
        whole = read_text(PORTS + "iommu intel\n", "ports")
        cut = replace(whole, functions=tuple(replace(item, config=item.config[:64]) for item in whole.functions))
        found = predict(cut, kernel("v3.10"))
        assert found.groups == ()
        assert "complete dumps" in found.undecided[0].why
        assert predict(whole, kernel("v3.10")).undecided == ()
