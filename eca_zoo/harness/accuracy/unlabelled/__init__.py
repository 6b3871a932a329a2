"""Images that have no labels: which they are, and their best classes."""
