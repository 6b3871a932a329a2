"""The results table: columns, rows and its forms."""
