"""Folders that cannot be written, disks that are full, and writers that are killed."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from eca_zoo.files import StorageError, lock, remove_leftovers, write_atomically
from eca_zoo.weights.errors import FetchError
from eca_zoo.weights.load import load_verified
from eca_zoo.weights.manifest import Entry, Source
from eca_zoo.weights.sources.fetch import fetch
from tests.spawning import run_python
from tests.weights.helpers import NAME, QUICK, broken_files, entry_with
from tests.weights.hub_server import HubServer

posix = pytest.mark.skipif(os.name != 'posix', reason='needs a POSIX system')


@pytest.fixture
def shown_home(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home in a folder that other users may see, which pytest's own folders are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv('ECA_ZOO_HOME', str(Path(folder) / 'home'))
        yield Path(folder) / 'home'


def run_limited(body: str, url: str, home: Path, content: bytes) -> list[str]:
    """Lines that a process prints after ``body`` took away its means, and a fetch of ``url``."""
    script = textwrap.dedent("""
        import os, resource, sys
        sys.argv[0] = 'eca-zoo'  # as the console script: without torch
        import huggingface_hub, filelock, tqdm.auto, urllib.request, netrc, grp, pwd
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.utils import tqdm as hub_tqdm
        from pathlib import Path
        from eca_zoo.weights.sources.fetch import fetch
        from eca_zoo.weights.manifest import Source
        from tests.weights.helpers import NAME, QUICK, entry_with
        content = Path(sys.argv[2]).read_bytes()
        entry = entry_with(content, Source(url=sys.argv[1]))
        home, os.environ['ECA_ZOO_HOME'] = os.environ['ECA_ZOO_HOME'], sys.argv[2] + '_first'
        fetch(NAME, entry_with(content, Source(url=Path(sys.argv[2]).as_uri())))  # imports all that a fetch needs
        os.environ['ECA_ZOO_HOME'] = home
    """)
    script += textwrap.dedent(body)
    script += textwrap.dedent("""
        try:
            print(fetch(NAME, entry, policy=QUICK))
        except Exception as error:
            print(type(error).__name__)
            print(error)
    """)
    reference = home.parent / 'content'
    reference.write_bytes(content)
    done = run_python('-c', script, url, reference)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@posix
def test_disk_without_space_is_said_with_the_path_and_leaves_nothing(
    hub: HubServer, url_entry: Entry, content: bytes, home: Path
) -> None:
    # A limit on the size of files fails writes as a full disk does: half a file is written, then an error.
    body = """
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    """
    kind, text = run_limited(body, hub.url('model.safetensors'), home, content)
    assert kind == 'StorageError'
    assert text.startswith(f'{home}/checkpoints/{NAME}-')
    assert text.endswith(': no space left to write it; free some, or set ECA_ZOO_HOME to another disk')
    assert [path for path in home.rglob('*') if path.is_file() and path.suffix != '.lock'] == []
    assert fetch(NAME, url_entry).read_bytes() == content


@posix
def test_full_file_system_is_said_before_anything_is_transferred(
    hub: HubServer, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = tmp_path / 'small'
    mount.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(mount)], capture_output=True)
    if mounted.returncode:
        pytest.skip('may not mount a file system')
    try:
        monkeypatch.setenv('ECA_ZOO_HOME', str(mount))
        hub.files['model.safetensors'] = content
        with pytest.raises(StorageError, match=r'no space left to write it; free some, or set ECA_ZOO_HOME to another'):
            fetch(NAME, entry_with(content, Source(url=hub.url('model.safetensors'))), policy=QUICK)
        assert hub.requests == []
    finally:
        subprocess.run(['umount', str(mount)], check=True)


@posix
def test_folder_without_write_permission_is_named(
    hub: HubServer, url_entry: Entry, content: bytes, shown_home: Path
) -> None:
    home = shown_home
    home.mkdir()
    home.chmod(0o555)
    body = """
        if os.geteuid() == 0:
            os.seteuid(65534)  # root may write everywhere
    """
    kind, text = run_limited(body, hub.url('model.safetensors'), home, content)
    assert kind == 'StorageError'
    assert text == (
        f'{home}/locks: not writable (Permission denied: {home} is dr-xr-xr-x {home.owner()} {home.group()}); set '
        'ECA_ZOO_HOME to a folder that can be written'
    )
    home.chmod(0o755)
    assert fetch(NAME, url_entry).read_bytes() == content


@posix
def test_lock_and_checkpoint_of_another_user_are_named_with_their_permissions(
    hub: HubServer, url_entry: Entry, content: bytes, shown_home: Path
) -> None:
    owner = f'{shown_home.parent.owner()} {shown_home.parent.group()}'
    file = fetch(NAME, url_entry)
    (lock_file,) = (shown_home / 'locks').iterdir()
    lock_file.chmod(0o600)
    file.chmod(0o600)
    body = """
        from eca_zoo.weights.verify import verify
        from eca_zoo.weights.sources.copies import condition_on_disk
        if os.geteuid() == 0:
            os.seteuid(65534)
        else:
            print('skip')
        print(condition_on_disk(NAME, entry.checkpoint))
        print(verify(NAME, entry)[0].error)
    """
    state, unreadable, kind, locked = run_limited(body, hub.url('model.safetensors'), shown_home, content)
    if state == 'skip':
        pytest.skip('the owner of a file may always make it readable again')
    assert state == 'unreadable'
    assert unreadable == (
        f'{file}: cannot read the checkpoint of {NAME}: Permission denied (-rw------- {owner}); ask its owner for '
        'chmod a+r, or set ECA_ZOO_HOME to another'
    )
    assert kind == 'StorageError'
    assert locked == (
        f'{lock_file}: this lock of another user cannot be taken (Permission denied: -rw------- {owner}); let your '
        'group write there (chmod g+rw, umask 002: see docs/weights.md), or set ECA_ZOO_HOME to another folder'
    )


@posix
def test_read_only_home_with_the_right_file_is_enough(
    hub: HubServer, url_entry: Entry, shown_home: Path, content: bytes
) -> None:
    home = shown_home
    fetch(NAME, url_entry)
    for path in [home, *home.rglob('*')]:
        path.chmod(0o555)
    body = """
        if os.geteuid() == 0:
            os.seteuid(65534)
    """
    try:
        assert run_limited(body, 'http://127.0.0.1:9/', home, content)[0].endswith('model.safetensors')
    finally:
        for path in [home, *home.rglob('*')]:
            path.chmod(0o755)


@pytest.mark.parametrize('place', ['home', 'home/checkpoints', 'home/locks'])
def test_file_in_the_place_of_a_folder_is_named(
    place: str, hub: HubServer, url_entry: Entry, content: bytes, home: Path
) -> None:
    path = home.parent / place
    path.parent.mkdir(exist_ok=True)
    path.write_text('x')
    with pytest.raises(StorageError) as caught:
        fetch(NAME, url_entry)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith(
        ': a file stands where a folder is needed; move it away, or set ECA_ZOO_HOME to a folder that can be written'
    )
    path.unlink()
    assert fetch(NAME, url_entry).read_bytes() == content


def test_folder_in_the_place_of_the_checkpoint_is_named(hub: HubServer, url_entry: Entry, home: Path) -> None:
    path = fetch(NAME, url_entry)
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError) as caught:
        fetch(NAME, url_entry)
    assert f'{path}: a folder stands where a file is needed; move it away' in str(caught.value)


def test_hub_cache_that_is_a_file_is_named(
    hub: HubServer, hub_entry: Entry, home: Path, content: bytes, waits: list[float]
) -> None:
    cache = home.parent / 'hub'
    cache.write_text('x')
    with pytest.raises((StorageError, FetchError)) as caught:
        fetch(NAME, hub_entry, policy=QUICK)
    assert str(cache) in str(caught.value)
    assert 'a file stands where a folder is needed; move it away, or set HF_HOME to a folder that can be' in str(
        caught.value
    )
    cache.unlink()
    assert fetch(NAME, hub_entry, policy=QUICK).read_bytes() == content


def test_cache_that_cannot_be_written_gives_way_to_the_next_source(
    hub: HubServer, hub_entry: Entry, home: Path, content: bytes
) -> None:
    (home.parent / 'hub').write_text('x')
    hub.files['mirror'] = content
    sources = (*hub_entry.checkpoint.sources, Source(url=hub.url('mirror')))
    assert fetch(NAME, entry_with(content, *sources), policy=QUICK).is_relative_to(home)


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / 'a'
    write_atomically(path, b'old')
    with pytest.raises(TypeError):
        write_atomically(path, 'no bytes')  # type: ignore[arg-type]
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_killed_writers_are_removed_when_they_are_old(tmp_path: Path) -> None:
    old, new, others = (tmp_path / name for name in ('.a.1.0123abcd.tmp', '.a.2.0123abcd.tmp', '.notes.tmp'))
    for path in (old, new, others):
        path.write_bytes(b'x')
    os.utime(old, (0, 0))
    os.utime(others, (0, 0))
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == [new, others]


@posix
def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / 'locks' / 'a.lock'
    script = (
        'import sys\n'
        "sys.argv[0] = 'eca-zoo'\n"
        'from pathlib import Path\n'
        'from eca_zoo.files import lock\n'
        "with lock(Path(sys.argv[1]), 'test'):\n"
        "    print('held', flush=True)\n"
        '    sys.stdin.read()\n'
    )
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
    with subprocess.Popen([sys.executable, '-c', script, str(path)], **pipes) as holder:
        assert holder.stdout.readline() == b'held\n'
        with pytest.raises(Timeout):
            FileLock(path).acquire(blocking=False)
        holder.send_signal(signal.SIGKILL)
    with FileLock(path).acquire(blocking=False):
        pass
    with lock(path, 'test'):
        pass


@posix
@pytest.mark.parametrize('code', [errno.ENOSYS, errno.ENOLCK])
def test_file_system_without_locks_is_worked_on_without(
    code: int, hub: HubServer, url_entry: Entry, content: bytes, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr('fcntl.flock', refuse)
    assert fetch(NAME, url_entry).read_bytes() == content
    assert 'this file system has no locks; fetching test_eca_resnet.remote goes on without' in caplog.text


def test_loading_needs_no_writable_home(home: Path) -> None:
    home.parent.mkdir(exist_ok=True)
    home.write_text('a file')
    from eca_zoo.weights.manifest import packaged_manifest

    name = 'test_eca_resnet.digits'
    assert len(load_verified(name, packaged_manifest().models[name])) == 96
    assert broken_files(home, b'') == []
