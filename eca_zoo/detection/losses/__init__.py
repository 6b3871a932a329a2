"""The losses of the three systems, as mmdetection v1 has them, and the targets that they compare with."""
