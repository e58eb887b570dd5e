import pytest

from quiesce.snapshot.redact import Redactor
from snapshot.snapdata import header


@pytest.mark.parametrize(
    "secret",
    [
        "00:1b:21:aa:bb:cc",
        "00-1b-21-aa-bb-cc",
        "enx001b21aabbcc",
        "01234567-89ab-cdef-0123-456789abcdef",
        "192.168.1.17",
        "fe80::21b:21ff:feaa:bbcc",
        "2001:db8:1:2:3:4:5:6",
        "someone@somewhere.example",
    ],
)
def test_what_names_somebody_is_replaced(secret: str) -> None:
    redactor = Redactor()
    assert redactor.text(f"a {secret} b") == "a REDACTED b"
    assert sum(redactor.counts.values()) == 1


@pytest.mark.parametrize(
    "text", ["0000:00:1f.2", "pci:v00008086d00002922", "0xfe000000", "IO-APIC 16-fasteoi", "6.1.0-x"]
)
def test_what_names_hardware_stays(text: str) -> None:
    assert Redactor().text(text) == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("root=UUID=0123-4567 ro", "root=REDACTED ro"),
        ("BOOT_IMAGE=(hd0,gpt2)/home/me/vmlinuz-6.1.0 quiet", "BOOT_IMAGE=vmlinuz-6.1.0 quiet"),
        ("BOOT_IMAGE=/secret", "BOOT_IMAGE=REDACTED"),
        ("intel_iommu=on iommu=pt vfio-pci.ids=10de:1b80", "intel_iommu=on iommu=pt vfio-pci.ids=10de:1b80"),
        ("pci=config_acs=1x1@0000:00:1c.0", "pci=config_acs=1x1@0000:00:1c.0"),
        ("pcie_acs_override=downstream,multifunction", "pcie_acs_override=downstream,multifunction"),
        ("panic=10 nosmt", "panic=10 nosmt"),
        ("ip=10.0.0.1::10.0.0.254 systemd.hostname=me", "ip=REDACTED systemd.hostname=REDACTED"),
        ("rd.lvm.lv=me/root password=secret", "rd.lvm.lv=REDACTED password=REDACTED"),
        ("quiet -- --user me", "quiet --"),
        ("/home/me", "REDACTED"),
    ],
)
def test_command_lines(text: str, kept: str) -> None:
    assert Redactor().command_line(text).strip() == kept


def test_who_built_the_kernel() -> None:
    assert Redactor().version("Linux version 6.1.0-x (me@home) (gcc) #1 SMP\n") == "Linux version 6.1.0-x\n"


def test_where_modules_are_in_memory() -> None:
    assert Redactor().modules("igb 1 0 - Live 0xffffffffc0123000\n") == "igb 1 0 - Live 0x0\n"


def config(*extended: int) -> bytearray:
    data = bytearray(header(size=4096))
    at = 0x100
    for number, cap_id in enumerate(extended):
        following = at + 0x20 if number + 1 < len(extended) else 0
        data[at : at + 4] = (cap_id | 1 << 16 | following << 20).to_bytes(4, "little")
        data[at + 4 : at + 0x20] = b"\xaa" * 0x1C
        at += 0x20
    return data


def test_serial_numbers_in_config_space() -> None:
    redactor, data = Redactor(), config(0x01, 0x03, 0x0D)
    found = redactor.config(bytes(data))
    assert found[0x124:0x12C] == bytes(8)
    data[0x124:0x12C] = bytes(8)
    assert found == bytes(data)
    assert redactor.counts == {"serial numbers of devices": 1}


def test_vital_product_data_in_config_space() -> None:
    redactor, data = Redactor(), config()
    data[6], data[0x34] = 0x10, 0x40
    data[0x40:0x48] = b"\x03\x00\x00\x80ABCD"
    assert redactor.config(bytes(data))[0x44:0x48] == bytes(4)


def test_lists_that_go_in_circles() -> None:
    data = config(0x03)
    data[0x102:0x104] = b"\x01\x10"
    data[6], data[0x34], data[0x40], data[0x41] = 0x10, 0x40, 0x03, 0x40
    Redactor().config(bytes(data))
    for size in (0, 64, 100, 256, 257):
        Redactor().config(bytes(data)[:size])
