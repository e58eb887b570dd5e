"""What real kernels showed, compared with the model of today, without any of them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from quiesce.cases.library import BUGS
from quiesce.testbed import recording
from quiesce.testbed.compare import AGREE, DIFFER, tally
from quiesce.testbed.known import unexplained

FILES = sorted((Path(__file__).parent / "recordings").glob("*.json.gz"))
FACTS = sorted((Path(__file__).parent / "recordings" / "facts").glob("*--*.json.gz"))
LIVES = sorted((Path(__file__).parent / "recordings" / "lives").glob("*--*.json.gz"))
"""Of ``tests/testbed/lives``: what random lives have taught, shortened."""
SWITCHED = {
    "iommu-msi-lost": "irq-zeroed",
    "alias-without-device": "alias-deref",
    "msi-off-at-shutdown": "msi-off",
    "intx-devres-on-detach": "intx-record",
    "managed-outlives-driver": "stays-managed",
    "replug-without-iommu": "no-data",
    "unmap-after-unplug": "unmap-bug",
}


@pytest.mark.parametrize("path", FILES + FACTS + LIVES, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_the_model_predicts_what_a_kernel_showed(path) -> None:
    stored = recording.read(path)
    lives = recording.replay(stored)
    assert [difference for life in lives for difference in unexplained(life, stored.release, stored.iommu)] == []
    assert sum(number for (_, verdict), number in tally(lives).items() if verdict == AGREE) > 0


def test_all_four_kernels_and_both_iommus_were_recorded() -> None:
    stored = [recording.read(path) for path in FILES]
    assert {one.release.split("-")[0].split("+")[0].rpartition(".")[0] for one in stored} >= {
        "5.10",
        "6.1",
        "6.12",
        "7.2",
    }
    assert {one.iommu for one in stored} >= {"intel", "amd", "none"}


def test_what_random_lives_taught_was_recorded_on_all_four_kernels() -> None:
    written = {path.stem for path in (Path(__file__).parent / "lives").glob("*.case")}
    recorded = Counter(path.name.partition("--")[0] for path in LIVES)
    assert recorded == dict.fromkeys(written, 4)


@pytest.mark.parametrize("bug", BUGS)
def test_every_bug_was_recorded_on_the_instrumented_kernel_off_and_on(bug) -> None:
    names = {path.name for path in FILES}
    assert any(name.startswith(f"{bug}--instrumented--") for name in names)
    assert any(name.startswith(f"{bug}--instrumented+{SWITCHED[bug]}--") for name in names)


@pytest.mark.parametrize("bug", BUGS)
def test_the_model_without_the_switch_does_not_predict_what_the_switch_showed(bug) -> None:
    (path,) = [path for path in FILES if path.name.startswith(f"{bug}--instrumented+")]
    (clean,) = [path for path in FILES if path.name.startswith(f"{bug}--instrumented--")]
    stored = recording.read(path)
    lives = recording.replay(replace(stored, kernel_set=recording.read(clean).kernel_set))
    verdicts = Counter(verdict for (_, verdict), number in tally(lives).items() if number)
    assert verdicts[DIFFER] or any(life.ended for life in lives)
