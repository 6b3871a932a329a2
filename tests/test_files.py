"""Files that are written: links stay, pipes and devices take the bytes, and nothing of anybody else's is unlinked."""

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from eca_zoo.files import StorageError, is_stream, replacing, write_atomically

posix = pytest.mark.skipif(os.name != 'posix', reason='needs a POSIX system')
ROOT = Path(__file__).parents[1]


@posix
@pytest.mark.parametrize('there', [True, False])
def test_a_symbolic_link_stays_and_what_it_leads_to_is_written(there: bool, tmp_path: Path) -> None:
    target, link = tmp_path / 'elsewhere' / 'table.csv', tmp_path / 'link.csv'
    if there:
        target.parent.mkdir()
        target.write_text('old')
        target.chmod(0o640)
    link.symlink_to('middle.csv')
    (tmp_path / 'middle.csv').symlink_to(target)
    write_atomically(link, b'new')
    assert os.readlink(link) == 'middle.csv'
    assert target.read_text() == 'new'
    assert sorted(path.name for path in target.parent.iterdir()) == ['table.csv']
    assert not there or stat.S_IMODE(target.stat().st_mode) == 0o640


@posix
def test_links_that_lead_to_themselves_are_named_and_stay(tmp_path: Path) -> None:
    (tmp_path / 'a').symlink_to('b')
    (tmp_path / 'b').symlink_to('a')
    with pytest.raises(
        StorageError, match=r'/a: cannot be written \(.*symbolic links\); choose another --results-file'
    ):
        write_atomically(tmp_path / 'a', b'x', '--results-file')
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_symlink()) == ['a', 'b']


@posix
def test_a_pipe_stays_and_its_reader_gets_the_bytes(tmp_path: Path) -> None:
    pipe, read = tmp_path / 'pipe', []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b'bytes' * 100_000)
    reader.join()
    assert read == [b'bytes' * 100_000]
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


@posix
def test_a_device_stays(tmp_path: Path) -> None:
    device = tmp_path / 'null'
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.write_bytes(b'')
    except OSError:
        pytest.skip('may not make or open a device')
    write_atomically(device, b'bytes')
    assert device.is_char_device()
    assert list(tmp_path.iterdir()) == [device]


@posix
@pytest.mark.parametrize('kind', ['pipe', 'file'])
def test_standard_output_takes_the_bytes_in_the_order_of_what_is_printed(kind: str, tmp_path: Path) -> None:
    names = [name for name in ('/dev/stdout', '/dev/fd/1', '/proc/self/fd/1') if Path(name).parent.exists()]
    program = (
        'import pathlib; from eca_zoo.files import write_atomically; print("first")\n'
        f'for name in {names!r}: write_atomically(pathlib.Path(name), name.encode() + b"\\n"); print("then")'
    )
    command = [sys.executable, '-c', program]
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    if kind == 'pipe':
        text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
    else:
        with (tmp_path / 'out.txt').open('w') as file:
            subprocess.run(command, stdout=file, check=True, env=environment)
        text = (tmp_path / 'out.txt').read_text()
    assert text == 'first\n' + ''.join(f'{name}\nthen\n' for name in names)


@posix
def test_what_a_stream_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'link').symlink_to('pipe')
    (tmp_path / 'file').touch()
    assert [is_stream(tmp_path / name) for name in ('pipe', 'link', 'file', 'absent')] == [True, True, False, False]
    assert not is_stream(tmp_path)


def test_a_file_that_cannot_be_renamed_to_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'mounted.csv'
    path.write_text('what was there before')
    number = path.stat().st_ino

    def busy(source: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(source), None, str(target))

    monkeypatch.setattr(os, 'replace', busy)
    write_atomically(path, b'new')
    assert path.read_text() == 'new'
    assert path.stat().st_ino == number
    assert list(tmp_path.iterdir()) == [path]


@posix
def test_a_file_in_a_folder_that_cannot_be_written_is_written_over(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / 'shared.csv'
    path.write_text('what was there before')
    monkeypatch.setattr(os, 'access', lambda place, mode: Path(place) == path)  # root may write everywhere
    write_atomically(path, b'new')
    assert path.read_text() == 'new'


def test_a_body_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / 'table.csv'
    path.write_text('old')

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text('half')
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]
