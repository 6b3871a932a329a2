"""The run directory: rows and counts survive any cut, and no other run gets in."""

import json
import os
import signal
import subprocess
import sys

import pytest

from eca_zoo.errors import InputError
from eca_zoo.harness.resume.journal import RunDirectory

IDENTITY = {'command': 'validate', 'settings': {'batch_size': 16, 'device': 'cpu'}}


def test_rows_and_partial_counts_are_there_in_the_next_run(tmp_path):
    with RunDirectory(tmp_path / 'run', IDENTITY) as journal:
        journal.record_partial('accuracy/a', {'blocks': [0, 1], 'counts': {'loss': 3}})
        journal.record_partial('accuracy/a', {'blocks': [2], 'counts': {'loss': 4}})
        journal.record_row('a', {'top1': 77.5}, 'accuracy')
        journal.record_row('a', {'rate': 5}, 'throughput')
    with RunDirectory(tmp_path / 'run', IDENTITY) as journal:
        assert journal.finished_rows('accuracy') == {'a': {'top1': 77.5}}
        assert journal.finished_rows('throughput') == {'a': {'rate': 5}}
        assert [partial['blocks'] for partial in journal.partials('accuracy/a')] == [[0, 1], [2]]
        assert journal.partials('accuracy/b') == []


def test_the_last_row_of_a_key_counts(tmp_path):
    with RunDirectory(tmp_path, IDENTITY) as journal:
        journal.record_row('a', {'top1': 1})
        journal.record_row('a', {'top1': 2})
        assert journal.finished_rows() == {'a': {'top1': 2}}


def test_every_process_has_a_file_of_its_own_and_the_main_one_reads_all(tmp_path):
    with RunDirectory(tmp_path, IDENTITY) as main, RunDirectory(tmp_path, IDENTITY, rank=3) as other:
        main.record_partial('a', {'blocks': [0]})
        other.record_partial('a', {'blocks': [7]})
    assert sorted(file.name for file in tmp_path.glob('*.jsonl')) == ['journal-00000.jsonl', 'journal-00003.jsonl']
    with RunDirectory(tmp_path, IDENTITY) as main:
        assert [partial['blocks'] for partial in main.partials('a')] == [[0], [7]]


def test_a_record_that_was_cut_anywhere_does_not_count_and_spoils_no_other(tmp_path):
    with RunDirectory(tmp_path / 'whole', IDENTITY) as journal:
        for number in range(3):
            journal.record_partial('a', {'blocks': [number]})
    content = (tmp_path / 'whole' / 'journal-00000.jsonl').read_bytes()
    lines = content.splitlines(keepends=True)
    start = len(content) - len(lines[-1])
    for cut in range(start, len(content)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / 'journal-00000.jsonl').write_bytes(content[:cut])
        with RunDirectory(folder, IDENTITY) as journal:
            kept = [partial['blocks'] for partial in journal.partials('a')]
            # A record that lacks its newline alone is whole.
            assert kept == [[0], [1]] + ([[2]] if cut == len(content) - 1 else [])
            journal.record_partial('a', {'blocks': [9]})
        with RunDirectory(folder, IDENTITY) as journal:
            assert [partial['blocks'] for partial in journal.partials('a')] == [*kept, [9]]


def test_a_changed_byte_makes_a_record_invalid_with_a_warning(tmp_path, caplog):
    with RunDirectory(tmp_path, IDENTITY) as journal:
        journal.record_row('a', {'top1': 77.5})
        journal.record_row('b', {'top1': 55.5})
    path = tmp_path / 'journal-00000.jsonl'
    path.write_bytes(path.read_bytes().replace(b'77.5', b'78.5'))
    with RunDirectory(tmp_path, IDENTITY) as journal:
        assert journal.finished_rows() == {'b': {'top1': 55.5}}
    assert caplog.messages == [f'{path}: line 2 is damaged; what it held is measured again']


@pytest.mark.parametrize('old', [b'"batch_size":16', b'"kind":"identity"', b'"top1":77.5}}\n'])
def test_a_line_that_may_have_said_what_the_run_is_takes_all_with_it(tmp_path, caplog, old):
    with RunDirectory(tmp_path, IDENTITY) as journal, RunDirectory(tmp_path, IDENTITY, rank=1) as other:
        journal.record_row('a', {'top1': 77.5})
        journal.require('accuracy/b', {'weights': 'b'})
        journal.record_row('b', {'top1': 55.5})
        other.record_partial('accuracy/a', {'blocks': [0]})
    path = tmp_path / 'journal-00000.jsonl'
    content = path.read_bytes()
    assert content.count(old) >= 1
    # Bytes of the last case merge a row with the line after it, which says what b is.
    path.write_bytes(content.replace(old, b'\0' * len(old), 1))
    with RunDirectory(tmp_path, {'command': 'other'}) as journal:
        assert journal.finished_rows() == {}
        assert journal.partials('accuracy/a') == []
        assert journal.identity('accuracy/b') is None
    assert [message.partition('is ')[2] for message in caplog.messages] == [
        'damaged, and may have said what this run is; all is measured again'
    ]


def test_a_record_that_was_cut_short_is_no_damage(tmp_path, caplog):
    with RunDirectory(tmp_path, IDENTITY) as journal:
        journal.record_row('a', {'top1': 77.5})
        journal.record_row('b', {'top1': 55.5})
    path = tmp_path / 'journal-00000.jsonl'
    path.write_bytes(path.read_bytes()[:-9])
    for _ in range(2):
        with RunDirectory(tmp_path, IDENTITY) as journal:
            assert journal.finished_rows() == {'a': {'top1': 77.5}}
    assert caplog.messages == []


def test_another_identity_is_refused_with_the_difference(tmp_path):
    with RunDirectory(tmp_path, IDENTITY) as journal:
        journal.record_row('a', {'top1': 1})
    other = {'command': 'validate', 'settings': {'batch_size': 32, 'device': 'cpu'}}
    with pytest.raises(InputError) as error:
        RunDirectory(tmp_path, other).__enter__()
    assert str(error.value) == (
        f'{tmp_path}: it holds a run with settings.batch_size 16, not 32; use another folder, or --restart to begin '
        'anew'
    )
    with RunDirectory(tmp_path, IDENTITY) as journal:
        assert journal.finished_rows() == {'a': {'top1': 1}}


def test_a_part_of_another_identity_is_refused(tmp_path):
    with RunDirectory(tmp_path, IDENTITY) as journal:
        journal.require('accuracy/a', {'weights_sha256': 'ab', 'x': 1})
        journal.require('accuracy/a', {'weights_sha256': 'ab', 'x': 1})
    with (
        RunDirectory(tmp_path, IDENTITY) as journal,
        pytest.raises(InputError, match='it holds a run with weights_sha256 "ab", not "cd"'),
    ):
        journal.require('accuracy/a', {'weights_sha256': 'cd', 'x': 1})


def test_restart_forgets_what_the_run_wrote_and_nothing_else(tmp_path):
    with RunDirectory(tmp_path, IDENTITY) as journal:
        journal.record_row('a', {'top1': 1})
        part = journal.predictions / f'00000-{"a" * 32}.pt'
        part.write_bytes(b'x')
    others = [tmp_path / 'journal-2026.jsonl', tmp_path / 'notes.txt', tmp_path / 'predictions' / 'mine.pt']
    for path in others:
        path.write_text('mine')
    with RunDirectory(tmp_path, {'command': 'other'}, restart=True) as journal:
        assert journal.finished_rows() == {}
    files = [path for path in tmp_path.rglob('*') if path.is_file()]
    assert sorted(files) == sorted([*others, tmp_path / '.lock', tmp_path / 'journal-00000.jsonl'])
    assert all(path.read_text() == 'mine' for path in others)
    others[-1].unlink()
    with RunDirectory(tmp_path, {'command': 'third'}, restart=True):
        assert not (tmp_path / 'predictions').exists()


def test_a_second_run_in_the_same_folder_is_refused_as_long_as_the_first_lives(tmp_path):
    program = (
        'import sys\n'
        'from pathlib import Path\n'
        'from eca_zoo.harness.resume.journal import RunDirectory\n'
        f'with RunDirectory(Path({str(tmp_path)!r}), {IDENTITY!r}) as journal:\n'
        '    print("open", flush=True)\n'
        '    sys.stdin.read()\n'
    )
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
    with subprocess.Popen([sys.executable, '-c', program], **pipes, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == 'open\n'
        with pytest.raises(InputError) as error:
            RunDirectory(tmp_path, IDENTITY).__enter__()
        assert str(error.value).startswith(f'{tmp_path}: another run uses this folder (process {first.pid} on ')
        first.kill()
        first.wait()
    with RunDirectory(tmp_path, IDENTITY) as journal:
        assert journal.finished_rows() == {}


def test_a_lock_ends_with_its_process_even_if_a_child_of_it_lives(tmp_path):
    program = (
        'import os, sys\n'
        'from pathlib import Path\n'
        'from eca_zoo.harness.resume.journal import RunDirectory\n'
        f'journal = RunDirectory(Path({str(tmp_path)!r}), {IDENTITY!r}).__enter__()\n'
        'child = os.fork()\n'
        'if child == 0:\n'
        '    sys.stdin.read()\n'
        '    os._exit(0)\n'
        'print(child, flush=True)\n'
        'os.kill(os.getpid(), 9)\n'
    )
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
    with subprocess.Popen([sys.executable, '-c', program], **pipes, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert process.wait() == -signal.SIGKILL
        with RunDirectory(tmp_path, IDENTITY) as journal:
            assert journal.finished_rows() == {}
        os.kill(child, signal.SIGKILL)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(Exception, match='file/run: a file stands where a folder is needed'):
        RunDirectory(tmp_path / 'file' / 'run', IDENTITY).__enter__()


def test_records_are_json_lines_with_their_checksum(tmp_path):
    with RunDirectory(tmp_path, IDENTITY) as journal:
        journal.record_row('a', {'top1': 1})
    for line in (tmp_path / 'journal-00000.jsonl').read_text().splitlines():
        checksum, text = line.split(' ', 1)
        assert len(checksum) == 8
        assert json.loads(text)['kind'] in ('identity', 'row')
