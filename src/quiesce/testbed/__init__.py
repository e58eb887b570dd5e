"""Real kernels under QEMU: fetch, boot, drive, observe, compare with the model."""
