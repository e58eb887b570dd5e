"""What a prediction depends on besides the machine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from quiesce.groups.machine import LightMachine, iommu_kind
from quiesce.groups.predict import Prediction, predict
from quiesce.kernel.kernelset import KernelSet
from quiesce.kernel.parameters import Parameters
from quiesce.snapshot.description import MachineDescription


@dataclass(frozen=True, slots=True)
class Conditions:
    """Kernel, parameters, IOMMU and order."""

    kernel: KernelSet
    parameters: Parameters = field(default_factory=Parameters)
    iommu: str | None = None
    """Which IOMMU, ``none`` for none; None for what the snapshot shows."""
    order: tuple[str, ...] = ()
    """Functions that are probed before all others."""

    def predict(self, description: MachineDescription) -> Prediction:
        """Predict the groups; raises BadInput when a firmware table is broken."""
        return predict(description, self.kernel, self.parameters, self.iommu, self.order)

    def machine(self, description: MachineDescription) -> LightMachine:
        """Return the machine with the IOMMU that is at work; raises BadInput when a firmware table is broken."""
        kind = self.iommu or iommu_kind(description)[0]
        return LightMachine(description, None if kind == "none" or self.parameters.iommu_off else kind)

    def on(self, kernel: KernelSet) -> Conditions:
        """Return the same on another kernel."""
        return replace(self, kernel=kernel)

    def with_parameters(self, parameters: Parameters) -> Conditions:
        """Return the same with other parameters."""
        return replace(self, parameters=parameters)
