"""What a training leaves behind: states, checkpoints, log, curves."""
