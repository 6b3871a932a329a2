"""Checkpoints: the manifest, loading and verifying; ``sources`` gets files, ``convert`` makes and publishes them."""
