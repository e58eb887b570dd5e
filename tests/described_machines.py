"""Random small machines in quiesce's own text, for properties of explanations."""

from __future__ import annotations

from hypothesis import strategies as st

_ACS = st.sampled_from(("acs", "no-acs", "acs=SV,RR,CR,UF"))


@st.composite
def machines(draw: st.DrawFn) -> str:
    """Root ports in one or two slots, with endpoints, switches and conventional bridges behind them."""
    lines, bus = ["00:00.0 host-bridge"], 1
    for device in (0x1C, 0x1D):
        for function in range(draw(st.integers(1, 3))):
            lines.append(f"00:{device:02x}.{function} root-port bus={bus:02x} {draw(_ACS)}")
            added, bus = draw(_behind(bus))
            lines += added
    lines.append(draw(st.sampled_from(("iommu intel", "iommu amd 00:00.2"))))
    return "\n".join(lines) + "\n"


@st.composite
def _behind(draw: st.DrawFn, bus: int) -> tuple[list[str], int]:
    kind = draw(st.sampled_from(("empty", "endpoint", "functions", "switch", "conventional")))
    if kind == "endpoint":
        return [f"{bus:02x}:00.0 nvme"], bus + 1
    if kind == "functions":
        return [f"{bus:02x}:00.{number} endpoint {draw(_ACS)}" for number in range(2)], bus + 1
    if kind == "conventional":
        cards = [f"{bus + 1:02x}:0{number}.0 e1000" for number in (1, 2)]
        return [f"{bus:02x}:00.0 pcie-to-pci bus={bus + 1:02x}", *cards], bus + 2
    if kind == "switch":
        lines = [f"{bus:02x}:00.0 switch-up bus={bus + 1:02x}"]
        for number in range(2):
            lines.append(f"{bus + 1:02x}:0{number}.0 switch-down bus={bus + 2 + number:02x} {draw(_ACS)}")
            lines.append(f"{bus + 2 + number:02x}:00.0 nvme")
        return lines, bus + 4
    return [], bus + 1
