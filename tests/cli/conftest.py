"""The commands for weights meet the same hub, home and checkpoints as the tests of the weights themselves."""

from tests.weights.conftest import content, home, hub, hub_entry, url_entry, waits  # noqa: F401
