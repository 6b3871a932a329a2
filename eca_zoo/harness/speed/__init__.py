"""Throughput: networks timed in turn, round by round."""
