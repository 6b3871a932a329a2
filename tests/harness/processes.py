"""Programs of many processes for tests."""

import subprocess
from pathlib import Path

from tests.harness.image_sets import MODEL
from tests.spawning import run_python

ROOT = Path(__file__).resolve().parents[2]
# Starts processes as torchrun does, by its variables and with a store that another process keeps, so that its port is
# nobody else's; forked, so that torch is imported once for all of them. The launcher has no threads: a lock that a
# thread holds at a fork is never released in the child.
LAUNCHER = """
import json, os, sys, traceback
from pathlib import Path
import torch
import torch.distributed
from eca_zoo.cli import main
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.machine.processes import process_group
from eca_zoo.harness.resume.journal import RunDirectory
from eca_zoo.harness.speed import rounds

torch.set_num_threads(1)
# Networks are timed in the run's process, as on other devices: a start of their own takes them seconds.
rounds.runs_apart = lambda spec, settings: False

def start_store():
    ports, port = os.pipe()
    end, end_with_launcher = os.pipe()
    keeper = os.fork()
    if not keeper:
        os.close(end_with_launcher)
        store = torch.distributed.TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
        os.write(port, str(store.port).encode())
        os.read(end, 1)
        os._exit(0)
    return keeper, os.read(ports, 9).decode()

def launch(count, work):
    keeper, port = start_store() if count > 1 else (0, '')
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            os.environ |= {'RANK': str(rank), 'WORLD_SIZE': str(count), 'LOCAL_RANK': str(rank),
                           'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port, 'TORCHELASTIC_USE_AGENT_STORE': 'True'}
            code = 99
            try:
                code = work(rank) or 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if keeper:
        os.kill(keeper, 9), os.waitpid(keeper, 0)
    return codes

def count_images(folder, out, batch_size, record_every=5):
    with process_group() as processes, RunDirectory(out / 'run', {}, rank=processes.rank) as journal:
        settings = EvalSettings(batch_size=batch_size, workers=0, device='cpu')
        [result] = evaluate(
            [ModelSpec('MODEL')], DataSpec(root=folder), settings, journal=journal, predictions=out / 'p.parquet',
            record_every=record_every,
        )
        (out / f'{processes.rank}.json').write_text(json.dumps(result.to_json()))
""".replace('MODEL', MODEL)


def complaints(stderr: str) -> list[str]:
    """Lines of a command's stderr without those on what is begun and done."""
    return [line for line in stderr.splitlines() if ' INFO: ' not in line]


def run_program(path: Path, body: str) -> subprocess.CompletedProcess:
    """Run ``body`` after the launcher's definitions."""
    path.write_text(LAUNCHER + body)
    done = run_python(path, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done
