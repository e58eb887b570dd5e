"""Where the corpus of real data is, and short dumps made by hand."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For property tests: no time limit per example, so that a busy machine fails nothing."""
SHIPPED = Path(__file__).resolve().parents[2] / "src" / "quiesce" / "cases" / "machines"


def shared(*pattern: str) -> list[Path]:
    """Return the files of the corpus that match, or nothing without a corpus."""
    return sorted(path for item in pattern for path in SHARED.glob(item) if path.is_file())


def hex_lines(data: bytes) -> str:
    """Return bytes as lspci prints them."""
    return "".join(f"{at:02x}: {data[at : at + 16].hex(' ')}\n" for at in range(0, len(data), 16))


def dump(*functions: tuple[str, bytes]) -> str:
    """Return the output of lspci -xxx for some functions."""
    return "\n".join(f"{bdf} Class 0106: 8086:2922 (rev 02)\n{hex_lines(data)}" for bdf, data in functions)


def header(
    vendor: int = 0x8086, device: int = 0x2922, class_code: int = 0x010601, kind: int = 0, size: int = 64
) -> bytes:
    """Return a config space with the given identity and nothing else."""
    data = bytearray(size)
    data[0:4] = vendor.to_bytes(2, "little") + device.to_bytes(2, "little")
    data[9:12] = class_code.to_bytes(3, "little")
    data[14] = kind
    return bytes(data)
