"""Recipes: their keys, and reading them."""
