"""The networks of ECA-Net and their ECA layer."""
