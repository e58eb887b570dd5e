"""Every difference between kernels that the model has, as one entry: the mainline commit, the release it came with, the
area, what it does. Code asks ``kernel.has(changes.NAME)`` and never a version number, because distributions backport.

An entry without a commit id (its hash could not be established) or a fix that was proposed and never merged has a
slug for an id. The second word is the first tag that contains it; ``vX.Y`` alone means after the last -rc.

Switches at the end belong to the instrumented kernel of the testbed and to no mainline kernel.
"""

from __future__ import annotations

from quiesce.kernel.acs_table import ACS_QUIRKS
from quiesce.kernel.handover_table import HANDOVER_QUIRKS
from quiesce.kernel.kernelset import Change as Change
from quiesce.kernel.kernelset import KernelSet as KernelSet
from quiesce.kernel.kernelset import UnknownKernel as UnknownKernel
from quiesce.kernel.kernelset import effective as effective
from quiesce.kernel.kernelset import every as every
from quiesce.kernel.kernelset import find as find
from quiesce.kernel.kernelset import kernel as kernel
from quiesce.kernel.kernelset import merged as _merged
from quiesce.kernel.kernelset import proposed as _proposed
from quiesce.kernel.kernelset import switch as _switch
from quiesce.kernel.kernelset import version_key as version_key
from quiesce.machine.quirk_tables import DMA_ALIAS_QUIRKS

SHUTDOWN_DISABLES_MSI = _merged(
    "d52877c7b1af", "v2.6.26", "PCI/MSI shutdown", "core disables MSI and MSI-X after the driver shutdown callback"
)
MSI_OFF_AT_ENUMERATION = _merged(
    "d5dea7d95c48", "v3.2", "PCI/MSI enumeration", "clear MSI enable bits when a pci_dev is initialised"
)
SHUTDOWN_DISABLES_DEVICE = _merged("b566a22c2332", "v3.5-rc1", "PCI shutdown", "call pci_disable_device() on shutdown")
SHUTDOWN_CLEARS_MASTER = _merged(
    "7897e6022761", "v3.9-rc1", "PCI shutdown", "clear Bus Master unconditionally on shutdown"
)
SHUTDOWN_SKIPS_D3COLD = _merged(
    "6e0eda3c3898", "v3.9-rc1", "PCI shutdown", "skip Bus Master clearing for D3cold or unknown state"
)
SHUTDOWN_CLEARS_MASTER_FOR_KEXEC = _merged(
    "4fc9bbf98fd6", "v3.13-rc1", "PCI shutdown/kexec", "clear Bus Master only for kexec"
)
SHUTDOWN_KEEPS_MSI = _merged(
    "fda78d7a0ead",
    "v4.12-rc1",
    "PCI/MSI shutdown",
    "stop disabling MSI and MSI-X in pci_device_shutdown()",
    undoes="d52877c7b1af",
)
PORTDRV_SHUTDOWN = _merged("cc27b735ad3a", "v4.15-rc1", "PCI portdrv", "port driver stops its services at shutdown")
PORTDRV_SHUTDOWN_KEEPS_PORT = _merged(
    "62b6dee1b44a", "v6.3-rc1", "PCI portdrv", "separate portdrv shutdown routine that does not disable the port"
)
AHCI_SHUTDOWN = _merged(
    "10a663a1b151", "v5.6-rc1", "ahci shutdown", "AHCI gets a shutdown callback that frees its resources"
)
VIRTIO_BUS_SHUTDOWN = _merged(
    "8bd2fa086a04",
    "v6.15-rc1",
    "virtio shutdown",
    "virtio bus breaks then resets devices on shutdown unless the driver has its own",
)
IRQ_MANAGED = _merged("cffe0a2b5a34", "v3.19-rc1", "x86/PCI irq", "dev->irq_managed tracks IOAPIC pin ownership")
PCIBIOS_IRQ_HOOKS = _merged(
    "890e4847587f", "v4.3-rc1", "PCI core", "weak pcibios_alloc_irq()/pcibios_free_irq() hooks around probe and remove"
)
PCIBIOS_ALLOC_IRQ = _merged(
    "991de2e59090", "v4.3-rc1", "x86/PCI irq", "x86 allocates the legacy IRQ at probe, frees it at unbind"
)
MSI_FREES_LEGACY_IRQ = _merged(
    "5f2269916b0e", "v4.3-rc1", "PCI/MSI", "enabling MSI frees the legacy IRQ, disabling re-allocates it"
)
AMD_IOMMU_UNBINDABLE = _merged(
    "cbbc00be2ce3", "v4.3-rc6", "iommu/amd", "no PCI driver may bind to the AMD IOMMU function"
)
NO_LEGACY_IRQ_WHILE_MSI = _merged(
    "8affb487d4a4", "v4.4-rc1", "x86/PCI irq", "x86 refuses to allocate the legacy IRQ while MSI is active"
)
REVERT_NO_LEGACY_IRQ_WHILE_MSI = _merged(
    "fe25d078874f", "v4.5-rc5", "x86/PCI irq", "revert of 8affb487d4a4", undoes="8affb487d4a4"
)
REVERT_PCIBIOS_ALLOC_IRQ = _merged(
    "6c777e8799a9", "v4.5-rc5", "x86/PCI irq", "revert of 991de2e59090", undoes="991de2e59090"
)
REVERT_MANAGED_IRQ_HELPERS = _merged(
    "67b4eab91caf", "v4.5-rc5", "PCI core", "revert of the managed-irq helper functions"
)
AMD_IOMMU_BINDABLE = _merged(
    "3be5fa236649", "v6.16-rc1", "iommu/amd", "AMD IOMMU function may be bound again", undoes="cbbc00be2ce3"
)
IOMMU_GROUP_OBJECTS = _merged("d72e31c93746", "v3.6-rc1", "iommu", "IOMMU groups as kernel objects")
AMD_ALIAS_SELF = _merged(
    "amd-alias-self", "v3.6", "iommu/amd", "AMD: ignore an alias without pci_dev and group by the device itself"
)
AMD_ALIAS_GROUPS = _merged("amd-alias-groups", "v3.8-rc1", "iommu/amd", "AMD: keep the group on the alias dev_data")
FOR_EACH_DMA_ALIAS = _merged("c25dc82899e6", "v3.16-rc1", "PCI core", "pci_for_each_dma_alias() iterator")
CENTRAL_GROUP_LOOKUP = _merged("104a1c13ac66", "v3.17-rc1", "iommu", "central group lookup in iommu core")
GROUP_LOOKUP_ALL_ALIASES = _merged(
    "f096c061f552", "v3.18-rc1", "iommu", "rework of PCI group lookup so every aliasing function is searched"
)
DMA_ALIAS_BITMAP = _merged("338c3149a221", "v4.7-rc1", "PCI core", "several DMA aliases per device")
AMD_DTE_PER_ALIAS = _merged("3332364e4ebc", "v5.6-rc1", "iommu/amd", "AMD device table copied for each PCI alias")
VTD_REAL_DMA_DEV = _merged("2b0140c69637", "v5.6-rc1", "iommu/vt-d", "VT-d uses pci_real_dma_dev()")
ACS_QUIRK_AMD_SOUTHBRIDGE = _merged("15b100dfd1c9", "v3.12-rc1", "PCI quirks", "AMD southbridge functions claim ACS")
ACS_QUIRK_INTEL_PCH = _merged(
    "d99321b63b1f", "v3.15-rc1", "PCI quirks", "Intel PCH root ports: hidden isolation enabled and claimed"
)
ACS_QUIRK_INTEL_RCIEP = _merged(
    "3247bd10a450", "v5.8-rc1", "PCI quirks", "every Intel RC integrated endpoint claims ACS"
)
CONFIG_ACS_PARAMETER = _merged(
    "47c8846a49ba", "v6.11-rc1", "PCI core ACS", "config_acs= parameter, ACS enable reordered"
)
ACS_QUIRK_BEFORE_CAP = _merged(
    "f3c3ccc4fe49", "v6.12-rc6", "PCI core ACS", "ACS quirk enable runs before the capability check again"
)
DISABLE_ACS_REDIR = _merged("aaca43fda742", "v4.19-rc1", "PCI core ACS", "disable_acs_redir= parameter")
ACS_CAP_CACHED = _merged(
    "52fbf5bdeeef",
    "v5.9-rc1",
    "PCI core ACS",
    "the ACS capability is looked up once; without it nothing is enabled",
)
ACS_ENABLED_WITHOUT_CAP = _merged(
    "462b58fb0339", "v5.10-rc3", "PCI core ACS", "ACS enable asks the quirks for devices without the capability again"
)
ACS_IN_DMA_CONFIGURE = _merged("c41e2fb67e26", "v7.0-rc1", "PCI core ACS", "ACS enabled from pci_dma_configure()")
AMD_RANGE_COVERS_ALIAS = _merged(
    "7bea695ada0e",
    "v6.14-rc1",
    "iommu/amd",
    "every IVRS range covers the last alias too, requester id 0 before any alias",
)
AMD_RANGE_WITHOUT_ALIAS = _merged(
    "a0c17ed907ac", "v6.17-rc7", "iommu/amd", "an IVRS range covers an alias only if it has one", undoes="7bea695ada0e"
)
MSIX_MASK_UNUSED = _merged("7d5ec3d36123", "v5.14-rc7", "PCI/MSI", "all unused MSI-X entries masked")
MSIX_MASKALL_FIRST = _merged(
    "438553958ba1", "v5.14-rc7", "PCI/MSI", "MSI-X enabled with MASKALL before the table is touched"
)
MSIX_MASK_AFTER_SUCCESS = _merged("83dbf898a2d4", "v5.16-rc7", "PCI/MSI", "mask the MSI-X table only after success")
THAW_RESTORES_CONFIG = _merged("e60514bd4485", "v4.13-rc1", "PCI PM", "restore config and MSI in thaw_noirq")
MSI_FREE_WITHOUT_BUG = _merged("9fb9eb4b59ac", "v5.17-rc1", "PCI/MSI", "MSI core frees descriptors itself")
MSI_DATA_IS_DEVRES = _merged("3f35d2cf9fbc", "v5.17-rc1", "PCI/MSI devres", "MSI release is its own devres action")
DISCONNECTED_STATE = _merged(
    "89ee9f768003", "v4.12-rc1", "PCI hotplug", "disconnected state for surprise-removed devices"
)
SPURIOUS_COUNT_AFTER_UNHANDLED = _merged(
    "7c07012eb1be", "v5.13-rc1", "genirq", "spurious counter only advances once something went unhandled"
)
PCIM_INTX = _merged("25216afc9db5", "v6.11-rc1", "PCI devres", "separate managed pcim_intx()")
PCIM_SEPARATE_ACTIONS = _merged(
    "f748a07a0b64", "v6.11-rc1", "PCI devres", "pcim_release() removed, devm action instead"
)
PCI_INTX_RECORDS_IF_CHANGED = _merged(
    "00f89ae4e759", "v6.11-rc2", "PCI devres", "pci_intx() creates a record only if the bit changes"
)
IS_MANAGED_CLEARED = _merged("fc8c818e7569", "v6.11", "PCI devres", "is_managed cleared when the disable action runs")
PCI_INTX_UNMANAGED = _merged("f546e8033d8f", "v6.14-rc1", "PCI devres", "export pci_intx_unmanaged() and pcim_intx()")
PCI_INTX_NEVER_MANAGED = _merged("dfa2f4d5f9e5", "v6.14-rc1", "PCI devres", "pci_intx() never managed")
PCIM_INTX_RESTORES_FIRST = _merged(
    "d555ed45a5a1", "v6.14-rc1", "PCI devres", "pcim_intx() restores the bit seen before the first call"
)
REGIONS_NEVER_MANAGED = _merged("51f6aec99cb0", "v6.16-rc1", "PCI devres", "region request functions never managed")
PROBE_REFUSES_LEFTOVER_DEVRES = _merged(
    "7c35e699c88b", "v5.6-rc1", "driver core", "probe refuses a device that still has devres"
)
BUS_DMA_CLEANUP = _merged("25f3bcfc54bc", "v5.19-rc1", "driver core", "bus dma_cleanup callback")
DEVICE_DEL_RELEASES_DEVRES = _merged("699fb50d9903", "v6.6-rc1", "driver core", "devres released in device_del()")
DRIVER_OVERRIDE = _merged("782a985d7af2", "v3.16-rc1", "PCI core", "pci_dev.driver_override")
DRIVER_OVERRIDE_OWN_LOCK = _merged(
    "10a4206a2401", "v7.1-rc1", "PCI core", "driver_override is the driver core's and has a lock of its own"
)
SRIOV_AUTOPROBE = _merged("0e7df22401a3", "v4.12-rc1", "PCI SR-IOV", "sriov_drivers_autoprobe")
VTD_CORE_DEFAULT_DOMAINS = _merged(
    "fa954e683178", "v5.3-rc1", "iommu/vt-d", "VT-d default domains come from iommu core"
)
VTD_DROPS_NOTIFIER = _merged("b7297783c2bb", "v5.3-rc1", "iommu/vt-d", "VT-d drops its own hotplug notifier")
VTD_DETACH_AT_REMOVE = _merged("458b7c8e0dde", "v5.3-rc4", "iommu/vt-d", "VT-d detaches the domain in remove_device")
AMD_DMA_IOMMU = _merged("be62dbf554c5", "v5.5-rc1", "iommu/amd", "AMD uses dma-iommu")
VTD_DMA_OPS_PER_DEVICE = _merged("6fc7020cf298", "v5.8-rc1", "iommu/vt-d", "VT-d sets dma_ops per device")
VTD_PROBE_DEVICE = _merged("e5d1841f18b2", "v5.8-rc1", "iommu/vt-d", "VT-d probe_device/release_device")
AMD_PROBE_DEVICE = _merged("dce8d6964ebd", "v5.8-rc1", "iommu/amd", "AMD probe_device/release_device")
VTD_DMA_IOMMU = _merged("c588072bba6b", "v5.11-rc1", "iommu/vt-d", "VT-d uses dma-iommu")
DMA_IOMMU_FLAG = _merged(
    "b5c58b2fdc42", "v6.12-rc1", "dma-mapping", "dma-mapping calls dma-iommu through a device flag"
)
DMA_IOMMU_FLAG_CLEARED = _merged(
    "280e5a301005", "v6.15-rc1", "iommu", "dma-iommu flag cleared when a device leaves its group"
)
IOMMU_PROBE_IN_CORE = _merged("bcb81ac6ae3c", "v6.15-rc1", "iommu", "DT/ACPI devices probed by the iommu core only")
WAIT_FOR_DEFAULT_DOMAIN = _merged("b46064a18810", "v6.15-rc1", "iommu", "wait for the default domain before use")
DMA_OWNERSHIP = _merged("1ea2a07a532b", "v5.19-rc1", "iommu", "DMA ownership counters in the group")
PCI_CLAIMS_DEFAULT_DOMAIN = _merged(
    "512881eacfa7", "v5.19-rc1", "PCI core", "PCI bus claims default-domain use before probe"
)
PCI_STUB_MANAGED_DMA = _merged("18c7a349d072", "v5.19-rc1", "PCI", "pci-stub manages its own DMA")
PORTDRV_MANAGED_DMA = _merged("c7d469849747", "v5.19-rc1", "PCI", "port driver manages its own DMA")
VFIO_CLAIMS_OWNERSHIP = _merged(
    "70693f470848", "v5.19-rc1", "vfio", "VFIO claims group ownership when a container is attached"
)
VFIO_NO_VIABILITY_CHECK = _merged("31076af0cb00", "v5.19-rc1", "vfio", "viability check removed from VFIO")
VFIO_NO_UNBOUND_LIST = _merged("93219ea94388", "v5.19-rc1", "vfio", "unbound list removed", undoes="60720a0fc646")
VFIO_NO_GROUP_NOTIFIER = _merged("3b86f317c9c7", "v5.19-rc1", "vfio", "VFIO group notifier removed")
IOMMU_NO_GROUP_NOTIFIER = _merged("a5f1bd1afacd", "v5.19-rc1", "iommu", "group notifier API removed")
CLAIM_ATTACHES_DOMAIN = _merged("0286300e6045", "v5.19-rc1", "iommu", "claiming ownership always attaches a domain")
VTD_RELEASE_DOMAIN = _merged(
    "81e921fd3216", "v6.9-rc1", "iommu/vt-d", "VT-d blocks a device before release via release_domain"
)
PCI_RESET_BLOCKS_IOMMU = _merged(
    "f5b16b802174", "v7.0-rc1", "PCI reset", "PCI reset paths call the iommu prepare/done pair"
)
VFIO_UNBOUND_LIST = _merged("60720a0fc646", "v4.0-rc1", "vfio", "remember devices while they are unbinding")
VFIO_REQUEST_OP = _merged("6140a8f56238", "v4.0-rc1", "vfio-pci", "request eventfd for vfio-pci removal")
VFIO_TOLERATES_BRIDGES = _merged("5f096b14d421", "v4.4-rc1", "vfio", "all PCI bridges tolerated in a vfio group")
VFIO_D3HOT_IDLE = _merged("6eb7018705de", "v4.1-rc1", "vfio-pci", "idle vfio-pci devices put in D3hot")
VFIO_SAVES_STATE_AT_D3HOT = _merged(
    "51ef3a004b1e", "v5.1-rc1", "vfio-pci", "vfio-pci saves and restores state around D3hot"
)
VFIO_RUNTIME_PM = _merged("7ab5e10eda02", "v5.19-rc1", "vfio-pci", "idle handling through runtime PM")
VFIO_VF_TOKEN = _merged("cc20d7999000", "v5.7-rc1", "vfio-pci", "VF token")
VFIO_ZAPS_ON_MEMORY_OFF = _merged("abafbc551fdd", "v5.8-rc1", "vfio-pci", "mappings zapped when memory decode is off")
VFIO_INTX_NO_AUTOEN = _merged(
    "fe9a7082684e", "v6.9-rc1", "vfio-pci", "exclusive INTx requested without auto-enable when masked"
)
VFIO_INTX_IGATE = _merged("810cd4bb5345", "v6.9-rc1", "vfio-pci", "external INTx mask ops take igate")
VFIO_INTX_HANDLER_LIVES_WITH_MODE = _merged(
    "18c198c96a81", "v6.9-rc1", "vfio-pci", "INTx handler lives as long as INTx mode"
)
VFIO_VF_PRIVATE_SET = _merged("e908f58b6beb", "v6.17-rc1", "vfio-pci", "VFs get a private dev_set")
VFIO_CLOSE_LOCKS_BRIDGE = _merged(
    "962ae6892d8b", "v7.0-rc1", "vfio-pci", "the reset at close also needs the lock of the bridge above"
)
VFIO_INTX_UNLAZY = _merged("8b9f128947dd", "v6.18-rc1", "vfio-pci", "lazy disable switched off for exclusive INTx")
RESCAN_REMOVE_LOCK = _merged("9d16947b7583", "v3.14-rc1", "PCI hotplug", "one lock for PCI rescan and removal")
DISCONNECT_WITHOUT_LOCK = _merged(
    "74ff8864cc84", "v6.3-rc1", "PCI hotplug", "disconnected may be set while a driver binds or unbinds"
)
VF_PRESENCE_BY_PF = _merged("98b04dd0b457", "v6.2-rc1", "PCI core", "VF presence judged by its PF")
PCIEHP_IGNORES_DPC_LINK = _merged(
    "a97396c6eb13", "v5.14-rc1", "PCI hotplug/DPC", "pciehp ignores link changes caused by DPC"
)
RESET_LOCKS_BRIDGE = _merged("7e89efc6e9e4", "v6.10-rc1", "PCI reset", "function reset locks the upstream bridge")
WARN_UNLOCKED_BUS_RESET = _merged(
    "920f6468924f", "v6.11-rc1", "PCI reset", "warn if a secondary bus reset is done unlocked"
)
BUS_LOCK_LOCKS_BRIDGE = _merged("a4e772898f8b", "v6.11-rc1", "PCI reset", "pci_bus_lock() also locks the bridge")
BUS_RESET_NEEDS_RESET_METHOD = _merged(
    "479380efe162", "v6.15-rc1", "PCI reset", "bus reset refused when reset_method is empty"
)
REVERT_BUS_RESET_NEEDS_RESET_METHOD = _merged(
    "bc0b828ef6e5", "v6.15-rc3", "PCI reset", "revert of 479380efe162", undoes="479380efe162"
)
REMOVE_KEEPS_POWER_STATE = _merged(
    "d462c8e89e84", "v7.2-rc1", "PCI core", "a removed driver no longer leaves its device in PCI_UNKNOWN"
)
PCIEHP_REPLACED_IN_SLEEP = _merged(
    "9d573d19547b", "v6.11-rc1", "PCI hotplug", "pciehp looks at resume whether the card is still the same"
)
PER_DEVICE_MSI_DOMAIN = _merged(
    "per-device-msi-domain", "v6.2-rc1", "PCI/MSI", "every device has an interrupt domain of its own for its messages"
)
RESET_PROBED_AT_INIT = _merged(
    "reset-probed-at-init", "v4.17-rc1", "PCI reset", "whether a device can be reset is asked once, when it is found"
)
XHCI_ONE_HANDLER = _merged("xhci-one-handler", "v6.7-rc1", "xhci", "xhci has a handler on its first vector only")
UIO_PCI_MANAGED = _merged(
    "uio-pci-managed", "v5.13-rc1", "uio", "uio_pci_generic is managed, and binds devices without an interrupt too"
)
D0_AT_INIT = _merged("4d4c10f763d7", "v6.16-rc1", "PCI PM", "devices put in D0 at init")
AER_RESETS_ON_REQUEST = _merged(
    "d0a2dee7d458",
    "v6.18-rc1",
    "PCI/AER",
    "the link is reset when a driver asks for it, and for fatal errors after mmio_enabled",
)
AER_TELLS_ON_FAILURE = _merged("9011f0667c93", "v6.18-rc1", "PCI/AER", "drivers are told when recovery fails")
AER_NORMAL_BEFORE_SLOT_RESET = _merged(
    "45bc82563d55", "v6.18-rc1", "PCI/AER", "error_state back to normal before slot_reset"
)
AGP_CHECKS_CAPABILITY = _merged(
    "d88dfb756d55", "v6.16-rc1", "agp", "agpgart tries unsupported devices only if they have an AGP capability"
)
RESET_NOTIFY_LOCKED = _merged("b014e96d1abb", "v4.13-rc1", "PCI reset", "reset_notify under device_lock")
SRIOV_RESCAN_LOCK = _merged("05703271c3cd", "v6.18-rc1", "PCI SR-IOV", "rescan lock around SR-IOV enable and disable")
SRIOV_RESCAN_LOCK_IN_STORE = _merged(
    "a5338e365c45", "v6.19-rc1", "PCI SR-IOV", "rescan lock only in sriov_numvfs_store()", undoes="05703271c3cd"
)
STATE_SAVED_AT_ADD = _merged(
    "1dc302f7fccc", "v6.19-rc1", "PCI AER/PM", "config state saved for every device at add time"
)
VIRTIO_BREAKS_ON_SURPRISE = _merged(
    "43bb40c5b926", "v5.14-rc1", "virtio-pci", "virtio-pci marks the device broken on surprise removal"
)
NOTIFY_REMOVED_DEVICE = _merged("599bad38cf71", "v3.18-rc1", "driver core", "BUS_NOTIFY_REMOVED_DEVICE event")
VTD_DETACH_AT_REMOVED_DEVICE = _merged(
    "e7f9fa5498d9",
    "v3.18-rc1",
    "iommu/vt-d",
    "VT-d removes the domain when the device is removed, not when the driver is unbound",
)
AMD_NO_DETACH_AT_UNBIND = _merged(
    "amd-no-detach-at-unbind", "v4.1-rc1", "iommu/amd", "AMD driver stops detaching the domain at UNBOUND_DRIVER"
)
IOMMU_CORE_AT_REMOVED_DEVICE = _merged(
    "iommu-core-removed-device", "v4.2-rc1", "iommu", "iommu core calls remove_device at REMOVED_DEVICE"
)
NOTIFY_DRIVER_NOT_BOUND = _merged("14b6257a5f3d", "v4.5-rc1", "driver core", "BUS_NOTIFY_DRIVER_NOT_BOUND event")
AMD_DETACH_AT_REMOVE = _merged(
    "amd-detach-at-remove", "v4.5-rc1", "iommu/amd", "AMD detaches the domain in its uninit path"
)

DEVRES_FREED_AT_RELEASE = _merged(
    "a525a3ddeaca", "v3.7-rc1", "driver core", "devres freed with the last reference instead of in device_del()"
)
DEVICE_ADD_AT_SCAN = _merged(
    "4f535093cf8f", "v3.9-rc1", "PCI core", "devices registered while the bus is scanned, bound later"
)
DEVICE_DEL_AFTER_STOP = _merged(
    "c4a0a5d964e9", "v3.14-rc1", "PCI core", "stopping unbinds only; device_del() waits for the second phase of removal"
)
ENABLE_REFUSES_BOUND = _merged(
    "6f5cdfa80273", "v4.18-rc1", "PCI core", "the sysfs enable file refuses a device that has a driver"
)
VF_OVERRIDE_PROBES = _merged(
    "2d2f4273cbe9", "v5.3-rc1", "PCI SR-IOV", "a VF with driver_override is probed although autoprobe is off"
)
BIND_RETURNS_PROBE_ERROR = _merged("ef6dcbdd8eb2", "v5.14-rc1", "driver core", "sysfs bind returns what probe returned")
DMA_DIRECT_FREES_BY_HANDLE = _merged(
    "3acac065508f", "v5.5-rc1", "dma-mapping", "dma-direct computes the pages to free from the DMA handle"
)

# Known from source trees; commit not established.
PROBE_ERROR_ON_DEVICE = _merged(
    "probe-error-wording", "v6.9-rc1", "driver core", "a failed probe is reported as an error of the device"
)
GROUP_TYPE_WRITABLE = _merged(
    "iommu-group-type-writable", "v5.11-rc1", "iommu", "a group's default domain type can be changed through sysfs"
)
RESET_CXL_BUS = _merged(
    "reset-cxl-bus", "v6.11-rc1", "PCI reset", "a device below a CXL port can be reset though the port masks bus resets"
)
IOMMU_REQUIRE_DIRECT = _merged(
    "iommu-require-direct",
    "v6.6-rc1",
    "iommu",
    "a device whose firmware wants memory mapped one to one may not be blocked, and so not be handed to user space",
)
RESET_METHOD_SYSFS = _merged(
    "reset-method", "v5.15-rc1", "PCI reset", "the order of reset methods is a sysfs attribute"
)
ENABLE_UPSTREAM_BRIDGE = _merged(
    "enable-upstream-bridge",
    "v3.13-rc1",
    "PCI core",
    "enabling a device enables the bridges above it and makes them bus master",
)
NUMVFS_STORE_DEVICE_LOCK = _merged(
    "numvfs-device-lock", "v4.13-rc1", "PCI SR-IOV", "writing sriov_numvfs takes the device lock"
)
VFIO_TRY_RESET = _merged(
    "vfio-try-reset",
    "v3.14-rc1",
    "vfio-pci",
    "opening and closing use a function reset that gives up when the device is locked",
)
VTD_INFO_AT_PROBE = _merged(
    "vtd-info-at-probe",
    "v5.19-rc1",
    "iommu/vt-d",
    "the per-device data is made when the device is probed, not when it is attached",
)

IOMMU_GROUP_MESSAGES = _merged(
    "iommu-group-messages", "v4.2-rc1", "iommu", "a device that joins or leaves a group is printed"
)
IOMMU_DEV_PRINTK = _merged("iommu-dev-printk", "v5.1-rc1", "iommu", "group messages name the device in front")
CORE_DEFAULT_DOMAINS = _merged(
    "iommu-core-default-domains", "v4.2-rc1", "iommu", "the iommu core gives each group a default domain"
)
RELEASE_BEFORE_LEAVING_GROUP = _merged(
    "9ac8545199a1", "v5.8-rc6", "iommu", "the driver lets go of a device before the device leaves its group"
)
GROUP_TYPE_BY_OWNERSHIP = _merged(
    "group-type-by-ownership", "v6.4-rc1", "iommu", "a group's type can be changed while nobody owns its DMA"
)
GROUP_ENDS_WITH_LAST_DEVICE = _merged(
    "cfb6ee65f760", "v6.6-rc1", "iommu", "the domains of a group go with its last device, whoever still holds the group"
)
ACS_BY_PORT_TYPE = _merged(
    "acs-by-port-type", "v3.12-rc1", "PCI core ACS", "ACS is judged by the PCIe type, and only by controls that exist"
)
GROUP_LOWEST_FUNCTION = _merged(
    "group-lowest-function",
    "v3.11-rc1",
    "iommu",
    "functions without isolation group by the lowest such function instead of function 0",
)
VTD_RMRR_LOCKED = _merged(
    "vtd-rmrr-locked", "v3.17-rc1", "iommu/vt-d", "a device with reserved memory may not leave its default domain"
)
AMD_IRQ_REMAPPING = _merged("amd-irq-remapping", "v3.7-rc1", "iommu/amd", "AMD IOMMUs remap interrupts")

# Proposed in the threads and never merged in this form.
FREE_IRQ_UNLESS_MSI = _proposed(
    "free-irq-unless-msi", "x86/PCI irq", "a failed probe frees the legacy IRQ only when MSI is off"
)
NO_ALLOC_IRQ_WHILE_MSI = _proposed(
    "no-alloc-irq-while-msi", "x86/PCI irq", "the probe path takes no legacy IRQ while MSI is on, without an error"
)
MSI_WITHOUT_DRIVER = _proposed(
    "msi-without-driver", "PCI core", "MSI may be on without a driver: a failed probe puts back the number it found"
)
AMD_IOMMU_PCI_DRIVER = _proposed(
    "amd-iommu-pci-driver", "iommu/amd", "the AMD IOMMU registers a pci_driver for its own function"
)
AMD_ALIAS_DEV_DATA_GROUP = _proposed(
    "amd-alias-dev-data-group", "iommu/amd", "a group kept on the dev_data of an alias without device (prototype)"
)
AMD_ALIAS_TABLE_WALK = _proposed(
    "amd-alias-table-walk", "iommu/amd", "join the group of any device that the alias table gives the same alias"
)
IOMMU_GROUP_BUS_PRIVATE = _proposed(
    "iommu-group-bus-private", "iommu", "a bus-private pointer in the group API names groups by requester id"
)
MSI_OFF_ONLY_FOR_KEXEC = _proposed(
    "msi-off-only-for-kexec", "PCI/MSI shutdown", "the core disables MSI at shutdown only on the way to kexec"
)
SHUTDOWN_DISABLES_INTX = _proposed(
    "shutdown-disables-intx", "PCI/MSI shutdown", "the core sets INTx disable at shutdown besides clearing MSI"
)
VIRTIO_SHUTDOWN_CALLBACK = _proposed(
    "virtio-shutdown-callback", "virtio-pci", "virtio-pci gets a shutdown callback that resets the device"
)
INTX_GFP_ATOMIC = _proposed("intx-gfp-atomic", "PCI devres", "the record of pcim_intx() is allocated with GFP_ATOMIC")
VFIO_INTX_OUTSIDE_LOCK = _proposed(
    "vfio-intx-outside-lock", "vfio-pci", "vfio-pci calls pci_intx() after dropping irqlock"
)
VFIO_UNMANAGED_INTX = _proposed("vfio-unmanaged-intx", "vfio-pci", "vfio-pci calls an unmanaged pci_intx()")
VTD_REPOPULATE_AT_REPLUG = _proposed(
    "vtd-repopulate-at-replug",
    "iommu/vt-d",
    "attaching to a known segment/bus/devfn also fills the new device's pointer",
)
VTD_LATE_UNMAP_WARNS = _proposed("vtd-late-unmap-warns", "iommu/vt-d", "an unmap without domain warns and returns")
VTD_UNMAP_AT_REMOVAL = _proposed(
    "vtd-unmap-at-removal", "iommu/vt-d", "removal unmaps what the device still has mapped; a late unmap finds nothing"
)
VTD_DEFER_TEARDOWN = _proposed(
    "vtd-defer-teardown", "iommu/vt-d", "the domain stays until the driver's last mapping is gone"
)

# Switches of the instrumented kernel whose fault no mainline change brings back in that kernel, because the code around
# it has gone. They stand for what the patched code does, and are in no kernel set that does not name them.
SWITCH_IRQ_ZEROED = _switch("switch-irq-zeroed", "PCI core", "a probe that fails or is refused sets pci_dev.irq to 0")
SWITCH_ALIAS_DEREF = _switch(
    "switch-alias-deref", "iommu/amd", "the function that an IVRS alias names is taken for the device, there or not"
)
SWITCH_NO_DATA = _switch(
    "switch-no-data", "dma-mapping", "a device at an address that VT-d has released once can map nothing"
)
SWITCH_UNMAP_BUG = _switch("switch-unmap-bug", "dma-mapping", "an unmap by a device that VT-d has released is a BUG_ON")

# Entries of the quirk tables, each a change of its own.
for _quirk in (*ACS_QUIRKS, *DMA_ALIAS_QUIRKS, *HANDOVER_QUIRKS):
    _merged(_quirk.change, _quirk.since, "PCI quirks", _quirk.subject)
