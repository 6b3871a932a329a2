"""The six COCO systems: torchvision's modules on timm's features, with the rules of the authors' framework."""
