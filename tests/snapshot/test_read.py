import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quiesce.machine.build import build_machine
from quiesce.snapshot.errors import BadInput
from quiesce.snapshot.ivrs import Ivrs, write_ivrs
from quiesce.snapshot.read import read_machine, read_text
from quiesce.world import World
from snapshot.snapdata import SHARED, SHIPPED, dump, header, needs_shared, shared, steady

RECORDING = {"name": "r", "devices": {"0000:00:00.0": {"config": header().hex()}}}


@pytest.mark.parametrize(
    ("text", "bdfs"),
    [
        (json.dumps(RECORDING), ["0000:00:00.0"]),
        (dump(("00:1f.2", header())), ["0000:00:1f.2"]),
        ("00:1f.2 SATA controller [0106]: Intel [8086:2922]\n", ["0000:00:1f.2"]),
        ("# mine\n00:1f.2 ahci\n", ["0000:00:1f.2"]),
        ("machine mine\n00:1f.2 ahci\n", ["0000:00:1f.2"]),
    ],
)
def test_the_content_decides_the_format(text: str, bdfs: list[str]) -> None:
    assert [str(item.bdf) for item in read_text(text, "t").functions] == bdfs


def test_text_and_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("00:00.0 host-bridge\n")
    assert read_machine(tmp_path / "m").functions == read_machine("00:00.0 host-bridge\n").functions
    assert read_machine(str(tmp_path / "m")).source == str(tmp_path / "m")


def test_a_folder_with_listing_tables_and_ids(tmp_path: Path) -> None:
    (tmp_path / "lspci-v.txt").write_text("00:1f.2 SATA controller: Somebody Something\n")
    (tmp_path / "ids-from-names.json").write_text(
        '{"0000:00:1f.2": {"id": "8086:2922"}, "0000:00:1f.3": {"how": "no"}}'
    )
    (tmp_path / "acpi").mkdir()
    (tmp_path / "acpi" / "ivrs.dat").write_bytes(write_ivrs(Ivrs(())))
    found = read_machine(tmp_path)
    assert found.functions[0].config[:4] == bytes.fromhex("86802229")
    assert (found.name, found.ivrs is not None, found.dmar) == (tmp_path.name, True, None)


def test_of_several_listings_the_one_with_bytes_counts(tmp_path: Path) -> None:
    (tmp_path / "lspci.txt").write_text("00:1f.2 SATA controller\n" * 200)
    (tmp_path / "lspci-xxx.txt").write_text(dump(("00:1f.2", header(device=0x1234))))
    assert read_machine(tmp_path).functions[0].config == header(device=0x1234)


def test_a_folder_like_sysfs(tmp_path: Path) -> None:
    for name, group in (("0000:00:1f.2", "3"), ("0000:01:10.0", "")):
        (tmp_path / "devices" / name).mkdir(parents=True)
        (tmp_path / "devices" / name / "config").write_bytes(header() if group else b"\xff" * 4 + bytes(60))
        (tmp_path / "devices" / name / "vendor").write_text("0x8086\n")
        (tmp_path / "devices" / name / "device").write_text("0x10ca\n")
        if group:
            (tmp_path / "groups" / group).mkdir(parents=True)
            (tmp_path / "devices" / name / "iommu_group").symlink_to(tmp_path / "groups" / group)
    found = read_machine(tmp_path / "devices")
    assert [dict(item.attributes) for item in found.functions] == [{}, {"vendor": "8086", "device": "10ca"}]
    assert (found.recorded_groups, found.recorded_ungrouped) == ((("0000:00:1f.2",),), ("0000:01:10.0",))


def test_a_folder_of_config_files(tmp_path: Path) -> None:
    (tmp_path / "0001-00-1f.2.config").write_bytes(header())
    assert [str(item.bdf) for item in read_machine(tmp_path).functions] == ["0001:00:1f.2"]


def test_a_recording() -> None:
    found = read_machine(SHIPPED / "pcie-to-pci-bridge--612--amd.json")
    assert (found.name, len(found.functions), found.dmar) == ("pcie-to-pci-bridge--612--amd", 13, None)
    assert found.recorded_groups is not None
    assert ("0000:01:00.0", "0000:02:01.0", "0000:02:02.0", "0000:02:03.0", "0000:02:03.1") in found.recorded_groups
    assert found.recorded_ungrouped == ("0000:00:01.0",)


def test_virtual_functions_of_a_recording_keep_their_ids() -> None:
    found = read_machine(SHIPPED / "sriov-igb-ari--612--intel.json")
    virtual = [item for item in found.functions if item.attributes]
    assert {tuple(item.attributes.values()) for item in virtual} == {("8086", "10ca")}
    assert len(virtual) == 8


@pytest.mark.parametrize(
    ("data", "place", "expected"),
    [
        ("{", "line 1", "JSON"),
        ("{}", "devices", "a value of type dict"),
        ('{"devices": {}}', "devices", "at least one function"),
        ('{"devices": {"x": {"config": ""}}}', "devices x", "a PCI address and config space in hex"),
        ('{"devices": {"00:00.0": {"config": "0g"}}}', "devices 00:00.0", "a PCI address and config space in hex"),
        ('{"devices": {"00:00.0": {"config": "00"}}}', "devices 00:00.0", "64, 256 or 4096 bytes"),
        (json.dumps({**RECORDING, "acpi": {"IVRS": "#"}}), "acpi IVRS", "a table in base64"),
        (json.dumps({**RECORDING, "acpi": {"IVRS": "AAAA"}}), "offset 0x0", "4 more bytes for the table's signature"),
        (json.dumps({**RECORDING, "groups": {"0": 1}}), "", "a JSON object"),
        ("[" * 100000, "", "lspci output"),
        ('{"a":' * 100000, "", "JSON"),
    ],
)
def test_a_bad_recording_is_named(data: str, place: str, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_text(data, "r.json")
    assert caught.value.place == place
    assert expected in caught.value.expected


def test_what_is_not_there_or_not_readable(tmp_path: Path) -> None:
    for source in (tmp_path / "none", tmp_path, "a\0b", "x" * 5000):
        with pytest.raises(BadInput):
            read_machine(source)


def test_the_error_is_one_line() -> None:
    with pytest.raises(BadInput) as caught:
        read_text("machine x\n00:1f.2 sparkle\n", "some/file")
    assert str(caught.value).startswith("some/file: line 2: expected a kind of function")


CORPUS = [
    *shared("hexdumps/*.txt", "hexdumps/pciutils-tests/*"),
    *sorted(
        {path.parent for path in shared("hexdumps/*/*.config", "machines/*/lspci-*")}
        - {SHARED / "machines" / "hisi-d05"}
    ),
]


@needs_shared
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_every_real_dump_reads_and_builds(path: Path) -> None:
    found = read_machine(path)
    machine = build_machine(World(), found)
    assert len(machine.functions) >= len(found.functions) > 0


@needs_shared
@pytest.mark.parametrize("path", shared("qemu-groups/*--612--*.json"), ids=lambda path: path.stem)
def test_every_recording_reads_and_builds(path: Path) -> None:
    recorded = json.loads(path.read_text())
    machine = build_machine(World(), read_machine(path))
    assert set(machine.functions) >= set(recorded["devices"])
    assert machine.iommu == recorded["iommu"]
    for bdf, device in recorded["devices"].items():
        fn = machine.function(bdf)
        above = device["path"].split("/")[-2]
        assert (fn.vendor, fn.device, fn.class_code) == tuple(
            int(device[key], 16) for key in ("vendor", "device", "class")
        )
        assert (f"{fn.upstream.bdf}" if fn.upstream else above) == above


@needs_shared
@pytest.mark.parametrize("path", shared("qemu-groups/*.json"), ids=lambda path: path.stem)
def test_every_recording_of_every_kernel_reads(path: Path) -> None:
    assert len(read_machine(path).functions) == len(json.loads(path.read_text())["devices"])


SEEDS = [
    json.dumps(RECORDING),
    dump(("00:1f.2", header()), ("00:01.0", header(kind=1))),
    "machine m\n00:00.0 host-bridge\n00:01.0 root-port bus=01 acs\n01:00.0 igb sriov=4\niommu amd\n",
    "00:09.0 PCI bridge [0604]: X [1002:5a1c]\n\tBus: primary=00, secondary=01\n"
    "\tCapabilities: [58] Express Root Port, MSI 00\n",
]


@steady
@given(st.sampled_from(SEEDS), st.data())
def test_no_change_to_an_input_breaks_reading_or_building(seed: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(seed)))
        seed = seed[:at] + data.draw(st.text(max_size=3)) + seed[at + data.draw(st.integers(0, 4)) :]
    try:
        found = read_text(seed, "t")
    except BadInput:
        return
    assert build_machine(World(), found).functions


@steady
@given(
    st.dictionaries(st.sampled_from(["00:00.0", "00:01.0", "01:00.0", "02:00.0"]), st.binary(min_size=64, max_size=64))
)
def test_random_config_space_builds(known: dict[str, bytes]) -> None:
    known = {bdf: b"\0" + data[1:] for bdf, data in known.items()}
    if known:
        machine = build_machine(World(), read_text(dump(*known.items()), "t"))
        assert [machine.describe(fn) for fn in machine.functions.values()]


def test_a_config_file_of_another_length_is_named(tmp_path: Path) -> None:
    (tmp_path / "0000-00-1f.2.config").write_bytes(bytes(100))
    with pytest.raises(BadInput, match="64, 256 or 4096 bytes of config space, found 100"):
        read_machine(tmp_path)


def test_ids_beside_a_listing_that_are_no_ids_are_named(tmp_path: Path) -> None:
    (tmp_path / "lspci.txt").write_text("00:1f.2 SATA controller: Somebody Something\n")
    (tmp_path / "ids-from-names.json").write_text('["8086:2922"]')
    with pytest.raises(BadInput, match=r"ids-from-names\.json"):
        read_machine(tmp_path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quiesce.snapshot.errors.SIZE_LIMIT", 4)
    (tmp_path / "m").write_text("00:1f.2 ahci\n")
    with pytest.raises(BadInput, match="at most"):
        read_machine(tmp_path / "m")
