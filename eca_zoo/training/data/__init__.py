"""What a training reads: the order of the images, their random states, their pixels."""
