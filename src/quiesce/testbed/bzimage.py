"""The kernel file that boot loaders take (bzImage) and the ELF file inside it."""

from __future__ import annotations

import bz2
import lzma
import re
import shutil
import struct
import subprocess
import zlib

from quiesce.snapshot.errors import BadInput
from quiesce.testbed.errors import Skipped

SETUP_SECTORS, MAGIC, VERSION, RELEASE = 0x1F1, 0x202, 0x206, 0x20E
RELOCATABLE, PAYLOAD = 0x234, 0x248
"""Places in the header, from the x86 boot protocol (Documentation/arch/x86/boot.rst)."""

LARGEST = 1 << 30
TOOL_SECONDS = 120


class BzImage:
    """What the header of a bzImage says."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        if len(data) < 0x1000 or data[MAGIC : MAGIC + 4] != b"HdrS" or self._word(VERSION, "<H") < 0x0208:
            raise BadInput(name, "", "an x86 kernel (bzImage) with boot protocol 2.08 or newer")

    def _word(self, place: int, form: str = "<I") -> int:
        return int(struct.unpack_from(form, self.data, place)[0])

    @property
    def banner(self) -> str:
        """Return the version line: release, who built it, build number and date."""
        start = self._word(RELEASE, "<H") + 0x200
        return self.data[start : start + 512].split(b"\0", 1)[0].decode("ascii", "replace")

    @property
    def release(self) -> str:
        """Return what ``uname -r`` prints on this kernel."""
        words = self.banner.split()
        if not words or re.fullmatch(r"\d+\.\d+[A-Za-z0-9.+~_-]*", words[0]) is None:
            raise BadInput(self.name, f"offset {RELEASE:#x}", "the release of the kernel")
        return words[0]

    @property
    def relocatable(self) -> bool:
        """Tell whether the kernel runs wherever it is loaded, which kexec needs."""
        return bool(self.data[RELOCATABLE])

    def vmlinux(self) -> bytes:
        """Return the ELF file inside; raises Skipped where a tool is missing that unpacks it."""
        start = ((self.data[SETUP_SECTORS] or 4) + 1) * 512 + self._word(PAYLOAD)
        packed = self.data[start : start + self._word(PAYLOAD + 4)]
        try:
            elf = unpacked(packed)
        except (ValueError, zlib.error, lzma.LZMAError, OSError, EOFError):
            elf = b""
        # The length of what was packed comes last; a difference shows a file that is not whole.
        if elf[:4] != b"\x7fELF" or struct.pack("<I", len(elf)) != packed[-4:]:
            raise BadInput(self.name, f"offset {start:#x}", "a kernel packed with gzip, xz, lzma, bzip2, zstd or lz4")
        return elf


def unpacked(packed: bytes) -> bytes:
    """Return what was packed; what follows the packed data (the kernel appends its length) is left alone."""
    if packed[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor().decompress(packed, LARGEST)
    if packed[:2] == b"\x1f\x8b":
        return zlib.decompressobj(31).decompress(packed, LARGEST)
    if packed[:3] == b"BZh":
        return bz2.BZ2Decompressor().decompress(packed, LARGEST)
    if packed[:3] == b"\x5d\0\0":
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(packed, LARGEST)
    if packed[:4] == b"\x28\xb5\x2f\xfd":
        return _by_tool("zstd", packed)
    if packed[:4] == b"\x02\x21\x4c\x18":
        return _by_tool("lz4", packed)
    raise ValueError("not packed in a known way")


def _by_tool(tool: str, packed: bytes) -> bytes:
    """Unpack what Python before 3.14 cannot. The tools complain of the length behind the data, but write all of it."""
    if shutil.which(tool) is None:
        raise Skipped(f"{tool} is needed to unpack this kernel; install it (Debian: {tool})")
    words = [tool, "-d", "-q", "-c"]
    try:
        done = subprocess.run(words, input=packed, capture_output=True, timeout=TOOL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Skipped(f"{tool} took longer than {TOOL_SECONDS} s") from None
    return done.stdout
