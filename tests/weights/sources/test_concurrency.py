"""Many processes and threads that want the same checkpoint at once, and one of them that is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eca_zoo.weights.local_manifest import local_manifest, record_entry
from eca_zoo.weights.manifest import Entry, Source, packaged_manifest
from eca_zoo.weights.sources.fetch import fetch, fetch_many
from tests.weights.helpers import NAME, QUICK, broken_files, entry_with
from tests.weights.hub_server import HubServer

WORKERS = 8
PATIENCE = 3600  # seconds after which something hangs
# The console script's own way in: without torch, so that eight processes start at once.
CLI = "import sys; sys.argv[0] = 'eca-zoo'; from eca_zoo.cli import main; sys.exit(main())"


def start_fetch(hub: HubServer, home: Path) -> subprocess.Popen:
    """A process ``eca-zoo fetch`` that logs what it does."""
    environment = {
        **os.environ, 'HF_ENDPOINT': hub.endpoint, 'HF_HUB_CACHE': str(home.parent / 'hub'), 'HF_HUB_DISABLE_XET': '1',
        'HF_HUB_DOWNLOAD_TIMEOUT': str(PATIENCE), 'HF_HUB_ETAG_TIMEOUT': str(PATIENCE), 'ECA_ZOO_HOME': str(home),
    }  # fmt: skip
    command = [sys.executable, '-c', CLI, 'fetch', NAME, '--verbose']
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_line(process: subprocess.Popen, part: str) -> None:
    """Read the log of ``process`` until a line has ``part`` in it."""
    assert process.stderr is not None
    assert any(part in line for line in process.stderr), f'it ended and never said: {part}'


def wait_for_bytes(folder: Path, pattern: str) -> None:
    """Wait until a file below ``folder`` whose name matches holds something."""
    deadline = time.monotonic() + PATIENCE
    while not any(path.stat().st_size for path in folder.rglob(pattern)):
        assert time.monotonic() < deadline, f'nothing was written to {pattern}'
        time.sleep(0.01)


def stop(process: subprocess.Popen) -> None:
    """Hold a process until it gets SIGCONT."""
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


@pytest.mark.skipif(os.name != 'posix', reason='needs SIGKILL')
@pytest.mark.parametrize('kind', ['url', 'hub'])
def test_eight_processes_download_once_and_a_killed_one_leaves_no_lock(
    kind: str, hub: HubServer, content: bytes, home: Path, request: pytest.FixtureRequest
) -> None:
    record_entry(NAME, request.getfixturevalue(f'{kind}_entry'))
    part = '/files/' if kind == 'url' else '/cdn/'
    hub.fail('stall', times=1, path=part)
    killed = start_fetch(hub, home)
    hub.wait_for('GET', part)
    if kind == 'url':
        wait_for_bytes(home, '*.part')
    others = [start_fetch(hub, home) for _ in range(WORKERS - 1)]
    for process in others:
        wait_for_line(process, f'waiting for another process: fetching {NAME}')
        stop(process)
    assert hub.count('GET', part) == 1, 'the others wait for the lock of the one that hangs'
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    for process in others:
        process.send_signal(signal.SIGCONT)
    outputs = [process.communicate()[0] for process in others]
    assert [process.returncode for process in others] == [0] * (WORKERS - 1)
    assert len({output.split()[-1] for output in outputs}) == 1
    assert all(output.startswith(f'{NAME}  ') for output in outputs)
    assert hub.count('GET', part) == 2, 'one download for all the others'
    assert broken_files(home.parent, content) == []
    assert list(home.rglob('*.part')) == []
    if kind == 'url':
        start = int(hub.requests[-1].headers['range'].removeprefix('bytes=').removesuffix('-'))
        assert 0 < start <= len(content) // 2, 'it continues what the killed one left'


def test_eight_threads_download_once(hub: HubServer, url_entry: Entry, content: bytes) -> None:
    barrier = threading.Barrier(WORKERS)

    def run(_: int) -> Path:
        barrier.wait()
        return fetch(NAME, url_entry)

    with ThreadPoolExecutor(WORKERS) as pool:
        paths = set(pool.map(run, range(WORKERS)))
    assert [path.read_bytes() for path in paths] == [content]
    assert len(hub.requests) == 1


def test_many_checkpoints_are_fetched_at_a_time_and_a_bad_one_stops_no_other(
    hub: HubServer, content: bytes, home: Path, waits: list[float]
) -> None:
    entries, contents = {}, {}
    for number in range(6):
        contents[f'a{number}.x'] = content + bytes(number)
        hub.files[f'{number}'] = contents[f'a{number}.x']
        entries[f'a{number}.x'] = entry_with(contents[f'a{number}.x'], Source(url=hub.url(f'{number}')))
    entries['a3.x'] = entry_with(content + bytes(3), Source(url=hub.url('absent')))
    entries['b.x'] = packaged_manifest().models['eca_resnet18.k3577_in1k']
    received, lock = [], threading.Lock()

    def progress(count: int) -> None:
        with lock:
            received.append(count)

    results = fetch_many(entries, workers=4, policy=QUICK, progress=progress)
    assert [result.name for result in results] == list(entries)
    failed = {result.name: type(result.error).__name__ for result in results if result.error is not None}
    assert failed == {'a3.x': 'FetchError', 'b.x': 'ConvertNeededError'}
    good = [result for result in results if result.path is not None]
    assert all(result.path.read_bytes() == contents[result.name] for result in good)
    assert sum(received) == sum(len(contents[result.name]) for result in good)
    assert all(result.was_here for result in fetch_many({r.name: entries[r.name] for r in good}))


def test_progress_counts_each_byte_once_however_often_it_was_sent(
    hub: HubServer, url_entry: Entry, content: bytes, waits: list[float]
) -> None:
    hub.fail('truncate', times=1)
    hub.fail('ignore_range', times=1)
    received: list[int] = []
    fetch(NAME, url_entry, policy=QUICK, progress=received.append)
    assert sum(received) == len(content)


def test_entries_recorded_by_many_at_once_are_all_there(home: Path) -> None:
    entry = packaged_manifest().models['eca_resnet18.k3577_in1k']
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda number: record_entry(f'eca_resnet18.n{number}', entry), range(32)))
    assert sorted(local_manifest().models) == sorted(f'eca_resnet18.n{number}' for number in range(32))
