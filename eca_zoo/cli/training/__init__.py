"""The subcommands of ``eca-zoo`` about training."""
