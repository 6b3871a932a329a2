"""A run that survives: its journal, its lock, and signals that ask it to stop."""
