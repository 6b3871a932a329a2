"""ECA-Net for timm: importing this package registers the networks with timm's model factory."""
