"""Where checkpoint files come from: copies on this machine, the hub, URLs, and the authors' own links."""
