"""What is trained: a classifier or a detector, each with its data, loss and validation."""
