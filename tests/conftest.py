"""Keeps the tests away from the user's own checkpoints: ``ECA_ZOO_HOME`` is a folder of the test session's."""

import os
import tempfile

# Before eca_zoo is imported, which reads the local manifest.
_home = tempfile.TemporaryDirectory(prefix='eca_zoo_test_home_')
os.environ['ECA_ZOO_HOME'] = _home.name


def pytest_unconfigure() -> None:
    _home.cleanup()
