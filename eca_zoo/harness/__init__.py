"""Measuring: accuracy, throughput, complexity and the results table."""
