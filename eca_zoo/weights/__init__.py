"""Checkpoints: the manifest, fetching and verifying, converting, publishing."""
