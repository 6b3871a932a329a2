"""COCO's evaluation in arrays: matches, average precision, intervals; and detectors run over a set of images."""
