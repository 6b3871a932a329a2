"""Processes of their own for tests, forked from one that has imported what the package needs.

An import of torch and timm takes seconds of a core, more than the work of most tests. What is preloaded is other
people's: the package itself is imported by the process, and reads its variables there. The hub's client reads its own
variables when timm is imported: a test that sets them starts an interpreter, as does one of the start itself.
"""

import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.context import BaseContext
from pathlib import Path

PRELOADED = ['torch', 'torchvision', 'timm', 'timm.data', 'timm.models', 'pandas', 'sklearn.datasets']
_CONTEXT = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload(PRELOADED)


def context(_: str) -> BaseContext:
    """In the place of ``multiprocessing.get_context('spawn')``: its processes begin as clean, and sooner."""
    return _CONTEXT


def run_python(
    *command: object, env: Mapping[str, str] | None = None, cwd: Path | None = None, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """What ``python COMMAND...`` does, with its output as text: ``-m MODULE``, ``-c PROGRAM`` or a file, and arguments.

    Raises:
        subprocess.CalledProcessError: With ``check``, if it does not exit with 0.
    """
    environment = dict(os.environ if env is None else env)
    _check_variables(environment)
    arguments = [str(part) for part in command]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / 'out', Path(folder) / 'err'
        process = _CONTEXT.Process(target=_work, args=(arguments, environment, cwd or Path.cwd(), out, err))
        process.start()
        process.join()
        done = subprocess.CompletedProcess(arguments, process.exitcode or 0, out.read_text(), err.read_text())
    if check:
        done.check_returncode()
    return done


def _check_variables(environment: Mapping[str, str]) -> None:
    """Refuse variables that have been read before the process begins."""
    read = ('HF_', 'OMP_', 'MKL_', 'MALLOC_', 'PYTHON')
    changed = {name for name in {*environment, *os.environ} if environment.get(name) != os.environ.get(name)}
    late = [name for name in changed if name.startswith(read) and name != 'PYTHONPATH']
    if late:
        raise ValueError(f'{", ".join(late)}: read before a forked process begins; start an interpreter')


def _work(command: list[str], environment: dict[str, str], cwd: Path, out: Path, err: Path) -> None:
    """Be the process of ``command``."""
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[:0] = [str(cwd), *environment.get('PYTHONPATH', '').split(os.pathsep)]
    gc.freeze()  # what was preloaded is no garbage
    multiprocessing.set_start_method(None, force=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kind, *arguments = command
    if kind == '-c':
        sys.argv = ['-c', *arguments[1:]]
        exec(compile(arguments[0], '<string>', 'exec'), {'__name__': '__main__'})
    elif kind == '-m':
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name='__main__', alter_sys=True)
    else:
        sys.argv = command
        runpy.run_path(kind, run_name='__main__')
