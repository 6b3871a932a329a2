"""What is measured: models as users name them, their weights, complexity and export."""
