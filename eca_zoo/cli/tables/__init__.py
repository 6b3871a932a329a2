"""Commands on tables that are there: comparisons and pages."""
