"""What a device can do, and what a round costs it."""
