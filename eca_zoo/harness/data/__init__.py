"""What is read: data sets, images, labels, pixels and batches."""
