"""The page: one file to look at and to send, made from a table and what lies beside it."""
