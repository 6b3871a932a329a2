"""Models counted on several sets of labels of the same images, and compared image by image."""
