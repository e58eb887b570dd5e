"""What it takes to hand a device of a real machine to user space (vfio-pci), and back: data first, no text."""
