"""What Linux does: one module per kernel source area, under the kernel's own names."""
