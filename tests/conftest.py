"""What holds for every test: homes for checkpoints and data that are not the user's, and nothing that is luck.

With several workers of pytest-xdist, each has homes of its own and its share of the processors.
"""

import os
import random
import sys
import tempfile

import pytest
from hypothesis import HealthCheck, settings

# Before eca_zoo is imported, which reads the local manifest, and the hub's libraries, which read their variables.
_home = tempfile.TemporaryDirectory(prefix='eca_zoo_test_home_')
for _name in [_name for _name in os.environ if _name.startswith('HF_')]:
    del os.environ[_name]
os.environ |= {'ECA_ZOO_HOME': os.path.join(_home.name, 'zoo'), 'HF_HOME': os.path.join(_home.name, 'hf')}
os.environ.pop('ECA_ZOO_MANIFEST', None)
# Before torch is imported.
if 'PYTEST_XDIST_WORKER_COUNT' in os.environ:
    _share = (os.cpu_count() or 1) // int(os.environ['PYTEST_XDIST_WORKER_COUNT'])
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, _share)))

# Neither how fast examples are made nor which ones were found before decides on a test.
settings.register_profile(
    'tests', deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile('tests')


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin every test, and the fixtures that it is the first to use, with one random state whatever ran before."""
    random.seed(0)
    for name, function in (('numpy.random', 'seed'), ('torch', 'manual_seed')):
        if name in sys.modules:
            getattr(sys.modules[name], function)(0)


@pytest.fixture
def own_processes() -> None:
    """For tests of the processes that networks are timed in on the CPU."""


@pytest.fixture(autouse=True)
def _networks_are_timed_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time networks in the process of the tests, as on other devices: a start of their own takes them seconds."""
    if 'torch' in sys.modules and 'own_processes' not in request.fixturenames:
        from eca_zoo.harness.speed import rounds

        runs_apart = rounds.runs_apart
        monkeypatch.setattr(
            rounds, 'runs_apart', lambda spec, settings: settings.keep_freed_memory and runs_apart(spec, settings)
        )


def pytest_unconfigure() -> None:
    _home.cleanup()
