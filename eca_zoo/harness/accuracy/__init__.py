"""Top-1 and top-5 of many models on one data set, in one pass over its images."""
