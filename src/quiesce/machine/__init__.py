"""What the silicon does: config space, functions, bridges, interrupts, IOMMUs."""
