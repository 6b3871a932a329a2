"""Commands on images without labels."""
