"""What a device can do, when it is on, and what a round costs it; all of it inside the compiled round."""
