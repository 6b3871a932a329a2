"""Detection and instance segmentation: the six COCO systems, COCO's data and its evaluation."""
