"""Which lines of ``lspci -v`` begin something new, and which only carry on the one above.

lspci breaks long lines itself (indented deeper, without a key), mail programs break them at column 72 to 80 (without
indentation), and some forums take all indentation away. One rule does for all three: a line that begins with none of
the keys below carries on the line above it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_KEYS = (
    # the header
    r"Subsystem:|DeviceName:|Physical Slot:|!!!|Control:|Status:|Latency:|Interrupt:|NUMA node:|IOMMU group:",
    r"Region [0-5]:|\[virtual\]|Expansion ROM at|Memory at|I/O ports at|Bus:|I/O behind bridge|Memory behind bridge",
    r"Prefetchable memory behind bridge|Secondary status:|BridgeCtl:|Capabilities:|Kernel driver in use:",
    r"Kernel modules:|Flags:|BIST|Device tree node:|Memory window|I/O window|16-bit legacy|Driver:|Module",
    # PCI Express
    r"Dev(?:Cap|Ctl|Sta)2?:|Lnk(?:Cap|Ctl|Sta)2?:|Slt(?:Cap|Ctl|Sta)2?:|Root(?:Cap|Ctl|Sta):",
    # other capabilities
    r"AF(?:Cap|Ctrl|Status):|Address:|Masking:|Vector table:|PBA:|Link Control|Link Config|Link Error|Bridge:|Command:",
    # extended capabilities
    r"ACSC(?:ap|tl):|ARIC(?:ap|tl):|ATSC(?:ap|tl):|PRI(?:Ctl|Sta):|PASIDC(?:ap|tl):|IOV(?:Cap|Ctl|Sta):|Initial VFs:",
    r"VF offset:|Supported Page Size:|VF Migration:|[UC]E(?:Sta|Msk|Svrt):|AERCap:|HeaderLog:|RootCmd:|ErrorSrc:",
    r"Dpc(?:Cap|Ctl|Sta):|Max (?:no )?snoop latency:|L1SubC(?:ap|tl1|tl2):|Caps:|Arb:|Ctrl:|VC[0-9]:|LnkCtl3:",
    r"PTM(?:Cap|Control|ClockGranularity|RootSelected|Effective)[^:]{0,12}:|Port Arbitration|LaneErrStat:|Desc:",
    r"CXLC(?:ap|tl)|McastCap:|McastCtl:|McastBAR:|Phy(?:16|32|64)(?:Cap|Ctl|Sta):|BAR [0-9]:|TphCap:",
)
WRAPPED_FROM = 40
"""A line that a mail program broke is at least so long."""
STARTS = re.compile(rf"\s*(?:{'|'.join(_KEYS)})")
"""What begins a new statement, whatever its indentation is."""
_OTHER_KEY = re.compile(r"\s+[A-Z][A-Za-z0-9 /_-]{0,30}:")
"""What begins a new statement where it is indented: keys that nobody here knows."""
_IN_EXPRESS = re.compile(r"(?:Control|Status|Enable|Changed|Region|Memory at)\b")
"""Keys that below a PCI Express capability are the rest of a line about its slot."""
_CAPABILITY = re.compile(r"Capabilities: \[[0-9a-f]{2,3}(?: v[0-9]{1,2})?\] (\w+)?")


def whole_line(lines: Sequence[str], at: int) -> str:
    """Return a line with what was broken off it."""
    found, width = lines[at].strip(), len(lines[at].strip())
    for line in lines[at + 1 :]:
        if width < WRAPPED_FROM or line[:1].isspace() or STARTS.match(line):
            break
        found, width = f"{found} {line.strip()}", len(line.strip())
    return found


def logical_lines(lines: Iterable[str]) -> list[str]:
    """Return the statements, each on a line of its own and without indentation."""
    found: list[str] = []
    express = False
    for raw in lines:
        line = raw.strip()
        if not line:
            continue
        begins = STARTS.match(line) is not None or _OTHER_KEY.match(raw) is not None
        if express and _IN_EXPRESS.match(line):
            begins = False
        if not begins and found:
            found[-1] += f" {line}"
        else:
            found.append(line)
        if found[-1].startswith("Capabilities:"):
            match = _CAPABILITY.match(found[-1])
            express = match is not None and match[1] == "Express"
    return found
