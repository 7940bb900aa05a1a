"""What a run will need, from shapes alone: programs compiled before there are data, their memory, work and time."""
