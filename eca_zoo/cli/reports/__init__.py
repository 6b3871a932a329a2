"""Commands that read tables which are there: a page of one, and two beside each other."""
