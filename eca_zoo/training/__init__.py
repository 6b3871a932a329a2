"""Training: recipes, the order of the data, the loop and its checkpoints."""
