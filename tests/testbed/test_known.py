"""The list of known differences: every line can fit something, and says why."""

from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

import pytest

from quiesce.testbed import recording
from quiesce.testbed.compare import ANSWER, Difference
from quiesce.testbed.guest_side import STEPS
from quiesce.testbed.kernel_sets import READ
from quiesce.testbed.known import Known, known_differences
from quiesce.testbed.observation import FIELDS

LINES = [
    line
    for line in (resources.files("quiesce.testbed") / "known_differences.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
]
RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.json.gz"))
RELEASES = {f"{series}.{point}{end}" for series, point in READ.items() for end in ("", "-amd64", "-quiesce")}
RELEASES |= {f"{series}.0-{build}-amd64" for series in READ for build in (32, 50)}
VERBS = {*STEPS, "start", "boot"}


def mistakes(line: str) -> list[str]:
    """Say what is wrong with a line."""
    words = line.split(None, 5)
    if len(words) != 6:
        return ["not six parts"]
    known = Known(*words)
    event = known.event.removesuffix("+")
    said = []
    if not any(fnmatchcase(release, known.kernels) for release in RELEASES):
        said.append("no such kernel")
    if not any(fnmatchcase(iommu, known.iommus) for iommu in ("intel", "amd", "none")):
        said.append("no such IOMMU")
    if not any(fnmatchcase(verb, event.partition("_")[0]) for verb in VERBS):
        said.append("no such event")
    if not any(fnmatchcase(name, known.field) for name in (*FIELDS, ANSWER)):
        said.append("no such field")
    if len(known.reason.split()) < 4:
        said.append("no reason")
    return said


@pytest.mark.parametrize("line", LINES)
def test_every_line_can_fit_a_kernel_and_says_why(line) -> None:
    assert mistakes(line) == []


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("6.1.* amd bind_* * irq", "not six parts"),
        ("4.19.* amd bind_* * irq it was so before the core", "no such kernel"),
        ("6.1.* arm bind_* * irq it was so before the core", "no such IOMMU"),
        ("6.1.* amd bnid_* * irq it was so before the core", "no such event"),
        ("6.1.* amd bind_* * irk it was so before the core", "no such field"),
        ("6.1.* amd bind_* * irq because", "no reason"),
    ],
)
def test_a_line_that_could_not_would_be_found(line, mistake) -> None:
    assert mistakes(line) == [mistake]


def test_the_list_is_read_as_it_is_written() -> None:
    assert len(known_differences()) == len(LINES)
    assert [one.kernels for one in known_differences()] == [line.split()[0] for line in LINES]
    assert all(line.endswith(one.reason) for one, line in zip(known_differences(), LINES, strict=True))


def test_the_releases_that_patterns_are_tried_on_are_of_the_recorded_families() -> None:
    recorded = {recording.read(path).release for path in RECORDINGS}
    assert {".".join(release.split(".")[:2]) for release in recorded} <= set(READ)


@pytest.mark.parametrize(
    ("pattern", "event", "before", "fits"),
    [
        ("bind_*", "bind ahci 0000:00:05.0", (), True),
        ("bind_vfio-pci_*", "bind ahci 0000:00:05.0", (), False),
        ("rescan", "unbind 0000:00:05.0", ("rescan",), False),
        ("rescan+", "unbind 0000:00:05.0", ("rescan",), True),
        ("rescan+", "rescan", (), True),
        ("rescan+", "unbind 0000:00:05.0", (), False),
    ],
)
def test_events_are_matched_with_their_devices_and_from_there_on(pattern, event, before, fits) -> None:
    difference = Difference(1, event, "0000:00:05.0", "irq", "line", "none")
    assert Known("*", "*", pattern, "*", "*", "why").fits(difference, "6.1.0", "amd", before) is fits
