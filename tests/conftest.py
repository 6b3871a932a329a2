"""What holds for every test: homes for checkpoints and data that are not the user's, and nothing that is luck.

With several workers of pytest-xdist, each has homes of its own and its share of the processors.
"""

import gc
import os
import random
import sys
import tempfile
from typing import Any

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


def pytest_collection_finish() -> None:
    """Once all tests are imported, have what is slow at every start done otherwise."""
    # What all tests import is no garbage; to look for it costs more than most tests.
    gc.collect()
    gc.freeze()
    if 'torch' in sys.modules:
        from eca_zoo.harness.machine import fresh_process
        from eca_zoo.harness.speed import fan_out, rounds
        from tests import spawning

        # Networks are timed in the process of the tests, as on other devices than the CPU; see `own_processes`.
        rounds.runs_apart = lambda spec, settings: settings.keep_freed_memory and _runs_apart(spec, settings)
        fan_out.get_context = fresh_process.get_context = spawning.context


def _runs_apart(spec: Any, settings: Any) -> bool:
    from eca_zoo.harness.speed import own_process

    return own_process.runs_apart(spec, settings)


@pytest.fixture
def own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the processes that networks are timed in on the CPU."""
    from eca_zoo.harness.speed import rounds

    monkeypatch.setattr(rounds, 'runs_apart', _runs_apart)


def pytest_unconfigure() -> None:
    _home.cleanup()
