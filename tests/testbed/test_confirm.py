"""Putting a case on a stage, without a guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_guest import image
from quiesce.testbed import confirm
from quiesce.testbed.confirm import Confirmer, Target
from quiesce.testbed.pool import Pool


@pytest.fixture
def confirmer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Confirmer:
    kernel = image(tmp_path)
    monkeypatch.setattr(confirm, "find_image", lambda name: kernel)
    return Confirmer(Pool(tmp_path))


@pytest.mark.parametrize("iommu", ["intel", "none"])
def test_a_case_about_an_iommu_function_is_skipped_on_another_iommu(confirmer: Confirmer, iommu: str) -> None:
    result = confirmer.case("iommu-msi-lost", Target("debian:6.12", iommu))
    assert result.skipped == f"00:00.2 is not there with IOMMU {iommu}"
    assert result.lives == []


def test_an_ssd_that_the_amd_iommu_of_qemu_does_not_serve_is_skipped(confirmer: Confirmer) -> None:
    result = confirmer.case("replug-without-iommu", Target("debian:6.12", "amd"))
    assert result.skipped == "QEMU's AMD IOMMU does not serve the NVMe 02:00.0, which is behind a port"
