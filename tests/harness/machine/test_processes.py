"""Many processes: disjoint shards, identical counts, one message, and a run that any number of them continues."""

import csv
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from eca_zoo.errors import InputError
from eca_zoo.harness.machine.devices import hardware_id
from eca_zoo.harness.machine.processes import Processes, from_main, gather, launched, local_device, shard, sum_counts
from tests.harness.image_sets import MODEL, write_folder, write_shards
from tests.harness.processes import ROOT, complaints, run_program


@pytest.mark.parametrize('count', [1, 2, 3, 5, 8])
@pytest.mark.parametrize('items', [0, 1, 4, 5, 7, 196])
def test_shards_are_disjoint_complete_and_of_nearly_equal_size(count, items):
    shards = [shard(range(items), Processes(rank, count)) for rank in range(count)]
    assert [item for part in shards for item in part] == list(range(items))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_without_torchrun_a_process_is_alone():
    assert launched() == Processes(0, 1, 0)
    assert gather(3) == [3]
    assert from_main('x') == 'x'
    assert sum_counts(torch.tensor([1, 2])).tolist() == [1, 2]
    with pytest.raises(TypeError, match='counts are integers'):
        sum_counts(torch.tensor([1.5]))


def test_variables_that_are_no_numbers_are_refused(monkeypatch):
    monkeypatch.setenv('RANK', 'first')
    with pytest.raises(InputError, match='RANK, WORLD_SIZE and LOCAL_RANK must be numbers'):
        launched()


def test_each_process_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert local_device('auto', Processes(3, 4, 1)) == 'cuda:1'
    assert local_device('cpu', Processes(3, 4, 1)) == 'cpu'
    assert local_device('cuda:1', Processes(2, 4, 2)) == 'cuda:1'
    with pytest.raises(InputError, match='process 2 of this machine has no GPU of its own: there are 2'):
        local_device('cuda', Processes(2, 4, 2))
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    assert local_device('cuda', Processes(2, 4, 2)) == 'cuda:0'


@pytest.mark.parametrize(('visible', 'ids'), [('0', ['GPU-a', 'GPU-a']), ('MIG-a,MIG-b', ['MIG-a', 'MIG-b'])])
def test_slices_of_a_gpu_are_told_apart_by_their_names(monkeypatch, visible, ids):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: SimpleNamespace(uuid='GPU-a'))
    assert [hardware_id(torch.device('cuda', index)) for index in range(2)] == ids


def test_processes_that_share_a_gpu_or_have_different_ones_are_refused_before_any_image_is_read(tmp_path):
    folder = write_folder(tmp_path / 'digits', count=20)
    done = run_program(
        tmp_path / 'program.py',
        f"""
import eca_zoo.harness.accuracy.evaluation as evaluation
import eca_zoo.harness.machine.processes as machine
from eca_zoo.harness.data.folders import FolderImages
FolderImages.open = None

def validate(rank, ids, names):
    # What torch says of two GPUs; the rest of the check is real.
    machine.hardware_id, machine.hardware_name = (lambda device: ids[rank]), (lambda device: names[rank])
    return main(['validate', '-m', '{MODEL}', '--device', 'cpu', '-j', '0', '--data-dir', {str(folder)!r}])

for ids, names in ((('GPU-a', 'GPU-a'), ('H100', 'H100')), (('GPU-a', 'GPU-b'), ('H100', 'T4'))):
    print(*launch(2, lambda rank: validate(rank, ids, names)), flush=True)
""",
    )
    assert done.stdout.splitlines() == ['2 2', '2 2']
    assert complaints(done.stderr) == [
        'eca-zoo validate: error: processes 0 and 1 share one GPU (H100, GPU-a); start one process for each GPU, and '
        'with a scheduler give each its own',
        'eca-zoo validate: error: process 1 has another kind of GPU (T4) than process 0 (H100), and one count comes '
        'from one kind; choose machines, or GPUs with CUDA_VISIBLE_DEVICES',
    ]


def test_a_process_that_is_done_does_not_wait_for_the_main_one_and_counts_travel_on_the_cpu(tmp_path):
    run_program(
        tmp_path / 'program.py',
        """
import select
from eca_zoo.harness.machine.processes import sum_counts
done, say_done = os.pipe()

def work(rank):
    with process_group() as processes:
        backend = torch.distributed.get_backend()
        summed = sum_counts(torch.full((3,), rank + 1))
        assert (backend, summed.device.type, summed.tolist()) == ('gloo', 'cpu', [3, 3, 3]), (backend, summed)
        if processes.is_main:
            # Nothing is written before the other has left the group.
            return 0 if select.select([done], [], [], 300)[0] else 1
    os.write(say_done, b'x')

assert launch(2, work) == [0, 0]
""",
    )


def test_counts_with_1_2_3_and_5_processes_are_identical_whether_they_divide_the_images_or_not(tmp_path):
    write_folder(tmp_path / '58', count=58)
    write_folder(tmp_path / '10', count=10)
    runs = [(58, 8, processes) for processes in (1, 2, 3, 5)] + [(10, 4, 5)]
    run_program(
        tmp_path / 'program.py',
        f"""
for count, batch_size, processes in {runs!r}:
    out = Path({str(tmp_path)!r}) / f'{{count}}-{{processes}}'
    out.mkdir()
    folder = Path({str(tmp_path)!r}) / str(count)
    codes = launch(processes, lambda rank: count_images(folder, out, batch_size))
    assert codes == [0] * processes, codes
""",
    )
    results = {}
    for count, _, processes in runs:
        out = tmp_path / f'{count}-{processes}'
        own = [json.loads((out / f'{rank}.json').read_text()) for rank in range(processes)]
        assert own == own[:1] * processes
        assert own[0]['num_images'] == count
        results[count, processes] = own[0], (out / 'p.parquet').read_bytes()
    assert all(results[58, processes] == results[58, 1] for processes in (2, 3, 5))
    # Three batches for five processes: each image is counted once all the same.
    assert [row[0] for row in results[10, 5][0]['per_class']] == [1] * 10


def test_wrong_input_is_said_once_and_ends_all_processes(tmp_path):
    write_folder(tmp_path / 'machine0', count=20)
    write_folder(tmp_path / 'machine1', count=19)
    done = run_program(
        tmp_path / 'program.py',
        f"""
for arguments in (
    ['--data-dir', {str(tmp_path / 'nowhere')!r}],
    ['--data-dir', {str(tmp_path)!r}, '--crop-pct', '7'],
    ['--data-dir', {str(tmp_path)!r}, '--run-dir', {str(tmp_path / 'program.py')!r}],
):
    codes = launch(2, lambda rank: main(['validate', '-m', '{MODEL}', '--device', 'cpu', *arguments]))
    print(*codes, flush=True)
command = ['validate', '-m', '{MODEL}', '--device', 'cpu', '-j', '0', '--data-dir']
print(*launch(2, lambda rank: main([*command, {str(tmp_path / 'machine')!r} + str(rank)])), flush=True)
""",
    )
    assert done.stdout.splitlines() == ['2 2', '2 2', '1 1', '2 2']
    [missing, crop, blocked, different] = complaints(done.stderr)
    assert different == (
        f'eca-zoo validate: error: {tmp_path}/machine0: process 1 sees other files there than process 0; all machines '
        'need the same'
    )
    assert missing == f'eca-zoo validate: error: {tmp_path}/nowhere: there is no such folder or file; check --data-dir'
    assert crop == 'eca-zoo validate: error: crop_pct must be above 0 and at most 1, not 7.0'
    assert blocked.startswith(f'eca-zoo validate: error: {tmp_path}/program.py: a file stands where a folder is needed')


def test_a_stream_is_counted_by_one_process_and_refused_to_two(tmp_path):
    shards = write_shards(tmp_path / 'shards')
    done = run_program(
        tmp_path / 'program.py',
        f"""
command = ['validate', '-m', '{MODEL}', '--device', 'cpu', '--dataset', 'wds/digits', '-j', '0', '--num-samples', '60',
           '--data-dir', 'pipe:cat {shards}', '--split', 'digits-{{00..02}}.tar']
for count in (1, 2):
    print(*launch(count, lambda rank: main(command)), flush=True)
""",
    )
    assert done.stdout.splitlines()[-1] == '2 2', done.stderr
    assert done.stdout.splitlines()[-2] == '0', done.stderr
    assert '100.0000' in done.stdout
    assert done.stderr.count('a streamed data set cannot be split between processes exactly; start one process') == 1


def test_a_run_of_two_processes_that_were_killed_is_continued_by_three(tmp_path):
    folder = write_folder(tmp_path / 'digits')
    run_program(
        tmp_path / 'program.py',
        f"""
import eca_zoo.harness.accuracy.passes as passes
folder, out = Path({str(folder)!r}), Path({str(tmp_path)!r})
(out / 'whole').mkdir()
(out / 'cut').mkdir()
assert launch(1, lambda rank: count_images(folder, out / 'whole', 4)) == [0]
record = passes.Pass.record
pipes = [os.pipe(), os.pipe()]

def cut(rank):
    steps = []

    def killed(self):
        record(self)
        steps.append(1)
        if len(steps) == 3:
            # Neither goes before the other has come as far.
            os.write(pipes[1 - rank][1], b'x')
            os.read(pipes[rank][0], 1)
            os.kill(os.getpid(), 9)

    passes.Pass.record = killed
    count_images(folder, out / 'cut', 4, record_every=0)

codes = launch(2, cut)
assert codes == [-9, -9], codes
assert launch(3, lambda rank: count_images(folder, out / 'cut', 4)) == [0, 0, 0]
""",
    )
    whole, cut = (json.loads((tmp_path / name / '0.json').read_text()) for name in ('whole', 'cut'))
    assert cut == whole
    assert (tmp_path / 'cut' / 'p.parquet').read_bytes() == (tmp_path / 'whole' / 'p.parquet').read_bytes()
    recorded = (tmp_path / 'cut' / 'run' / 'journal-00001.jsonl').read_text()
    assert recorded.count('"kind":"partial"') > 3


@pytest.mark.slow
def test_the_command_runs_under_torchrun_and_prints_once(tmp_path):
    folder = write_folder(tmp_path / 'digits')
    results = tmp_path / 'results.csv'
    command = [
        sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', 'validate.py', '-m',
        MODEL, '--data-dir', str(folder), '--device', 'cpu', '-b', '8', '-j', '0', '--results-file', str(results),
    ]  # fmt: skip
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(MODEL) == 1
    with results.open(newline='') as file:
        [row] = csv.DictReader(file)
    assert row['top1'] == '100.0'
