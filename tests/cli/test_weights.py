"""The commands convert, fetch, verify, list and publish: what they print, their exit codes, one line an error."""

import csv
import io
import json
from pathlib import Path

import msgspec
import pytest
import torch

from eca_zoo.cli import main
from eca_zoo.weights.local_manifest import record_entry
from eca_zoo.weights.manifest import Entry, Source, load_manifest
from tests.reference_checkpoints import checkpoint
from tests.spawning import run_python
from tests.weights.helpers import NAME, entry_with
from tests.weights.hub_server import HubServer

DIGITS = 'test_eca_resnet.digits'
CONVERTED = 'eca_mobilenetv2.k13_in1k'


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / 'eca_mobilenetv2_k13.pth.tar'
    torch.save(checkpoint('eca_mobilenetv2'), path)
    return path


def run(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, list[str], list[str]]:
    """Exit code, and the lines of standard output and standard error."""
    capsys.readouterr()
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse
        code = stop.code if isinstance(stop.code, int) else 1
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err.splitlines()


def test_convert_says_what_it_found_and_where_it_is(home: Path, original: Path, tmp_path: Path, capsys) -> None:
    code, output, errors = run(capsys, 'convert', str(original), '--out', str(tmp_path / 'out'))
    entry = load_manifest().models[CONVERTED]
    assert (code, errors) == (0, [])
    assert output == [
        f'{CONVERTED}: kernel sizes [1, 3], 1000 classes',
        f'  from  {original} ({entry.authors_file.size} bytes, SHA-256 {entry.authors_file.sha256})',
        f'  to    {tmp_path / "out"}',
        f'        model.safetensors ({entry.checkpoint.size} bytes, SHA-256 {entry.checkpoint.sha256})',
        f"  use   timm.create_model('{CONVERTED}', pretrained=True) after import eca_zoo",
    ]


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['convert', 'absent.pth'], 'absent.pth: cannot read the checkpoint: No such file or directory'),
        (['fetch', 'eca_resnet5'], "no checkpoint is called 'eca_resnet5'; the nearest names are eca_resnet50"),
        (['fetch', 'eca_resnet50'], 'eca_resnet50.k3557_in1k needs conversion: no hash of its weights is known; down'),
        (['verify', 'eca_resnet50'], 'eca_resnet50.k3557_in1k needs conversion: no hash of its weights is known; dow'),
        (['verify', 'nothing'], "no checkpoint is called 'nothing'; "),
        (['list', 'zzz*'], "no checkpoint is called 'zzz*'; eca-zoo list shows what there is"),
        (['publish', DIGITS], 'publish needs --repo ORG/NAME, or --folder DIR to write the folder alone'),
        (['publish', 'eca_*', '--repo', 'a/b'], 'eca_*: publish takes one checkpoint, and this means eca_resnet18.k35'),
        (['publish', DIGITS, '--repo', 'mine'], "--repo: repo must be ORG/NAME, not 'mine'"),
        (
            ['publish', DIGITS, '--folder', 'x', '--results', 'no.csv'],
            'no.csv: cannot read the results: [Errno 2] No s',
        ),
        (['fetch', DIGITS, '--from-authors'], f'{DIGITS}: the manifest knows no file of its authors on Google Drive'),
        (['fetch', 'eca_resnet50', '--from-authors', '--offline'], '--from-authors needs a connection; leave --offl'),
        (['fetch', 'eca_resnet50', '--from-authors'], 'eca_resnet50.k3557_in1k: not downloaded: nobody agreed to trus'),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, home: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('sys.stdin', io.StringIO())
    code, output, errors = run(capsys, *arguments)
    assert (code, output, len(errors)) == (2, [], 1)
    assert errors[0].startswith(f'eca-zoo {arguments[0]}: error: {said}')


@pytest.mark.parametrize(
    'arguments', [['fetch'], ['convert'], ['fetch', 'all', '-j', '0'], ['list', '--format', 'xml']]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys) -> None:
    code, output, errors = run(capsys, *arguments)
    assert (code, output) == (2, [])
    assert errors[-1].startswith(f'eca-zoo {arguments[0]}: error: ')


def test_fetch_says_what_it_fetched_and_what_was_here(hub: HubServer, hub_entry: Entry, capsys) -> None:
    record_entry(NAME, hub_entry)
    code, output, errors = run(capsys, 'fetch', 'all')
    assert (code, errors) == (0, [])
    packaged = [[DIGITS, 'was here'], ['test_maskrcnn.digits', 'was here']]
    assert [line.split('  ')[:2] for line in output[:3]] == [*packaged, [NAME, 'fetched']]
    assert [line.split('  ')[1] for line in run(capsys, 'fetch', 'all', '--offline')[1][:3]] == ['was here'] * 3
    assert len(output) == 15
    assert output[3].startswith(
        "eca_resnet18.k3577_in1k  skipped  download the authors' file eca_resnet18_k3577.pth.tar "
    )
    assert 'skipped' not in ' '.join(run(capsys, 'fetch', NAME, DIGITS)[1])


def test_failed_fetch_is_exit_code_1_and_the_others_are_fetched(
    hub: HubServer, url_entry: Entry, content: bytes, capsys
) -> None:
    record_entry(NAME, url_entry)
    record_entry('eca_resnet18.absent', entry_with(content[:-1], Source(url=hub.url('absent'))))
    code, output, errors = run(capsys, 'fetch', NAME, 'eca_resnet18.absent')
    assert (code, len(output), len(errors)) == (1, 1, 1)
    assert output[0].startswith(f'{NAME}  fetched  ')
    assert errors[0] == (
        f'eca-zoo fetch: error: eca_resnet18.absent could not be fetched: {hub.url("absent")}: 127.0.0.1 has no such '
        'file: status 404; check the URL in the manifest'
    )


def test_offline_without_the_file_is_one_line(hub: HubServer, hub_entry: Entry, capsys) -> None:
    record_entry(NAME, hub_entry)
    code, output, errors = run(capsys, 'fetch', NAME, '--offline')
    assert (code, output, len(errors)) == (1, [], 1)
    assert errors[0].endswith(
        'not in the cache, and offline; unset HF_HUB_OFFLINE, or leave --offline out, to download it'
    )
    assert hub.requests == []


def test_verify_names_what_is_right_and_what_changed(home: Path, original: Path, capsys) -> None:
    run(capsys, 'convert', str(original))
    code, output, errors = run(capsys, 'verify')
    assert (code, errors) == (0, [])
    assert [line.split('  ')[:2] for line in output] == [
        [CONVERTED, 'ok'],
        [DIGITS, 'ok'],
        ['test_maskrcnn.digits', 'ok'],
    ]
    path = Path(output[0].split('  ')[2])
    path.write_bytes(path.read_bytes()[:-1])
    code, output, errors = run(capsys, 'verify')
    assert (code, len(output), len(errors)) == (2, 2, 1)
    assert errors[0].startswith(f'eca-zoo verify: error: {path}: these are not the weights of {CONVERTED}: SHA-256 ')
    assert errors[0].endswith('run: eca-zoo convert eca_mobilenetv2_k13.pth.tar')


def test_verify_as_json_has_every_file_with_what_is_wrong(home: Path, original: Path, capsys) -> None:
    run(capsys, 'convert', str(original))
    rows = json.loads('\n'.join(run(capsys, 'verify', '--format', 'json')[1]))
    names = [CONVERTED, DIGITS, 'test_maskrcnn.digits']
    assert [(row['model'], row['ok'], row['error']) for row in rows] == [(name, True, None) for name in names]
    path = Path(rows[0]['path'])
    path.write_bytes(path.read_bytes()[:-1])
    code, output, errors = run(capsys, 'verify', CONVERTED, 'eca_resnet18', '--format', 'json')
    damaged, absent = json.loads('\n'.join(output))
    assert (code, len(errors)) == (2, 2)
    assert (damaged['ok'], damaged['path'], damaged['size']) == (False, str(path), len(path.read_bytes()) + 1)
    assert damaged['error'].startswith(f'{path}: these are not the weights of {CONVERTED}: ')
    assert (absent['path'], absent['sha256']) == (None, None)


def test_verify_of_an_absent_checkpoint_says_how_to_get_it(hub: HubServer, url_entry: Entry, capsys) -> None:
    record_entry(NAME, url_entry)
    code, output, errors = run(capsys, 'verify', NAME)
    assert (code, output) == (2, [])
    said = f'{NAME} is not on this machine; to get it run: eca-zoo fetch {NAME}'
    assert errors == [f'eca-zoo verify: error: {said}']


def test_list_has_one_row_a_checkpoint_in_three_formats(home: Path, capsys) -> None:
    code, output, errors = run(capsys, 'list', '--format', 'csv')
    assert (code, errors) == (0, [])
    rows = list(csv.DictReader(output))
    assert [row['model'] for row in rows] == list(load_manifest().models)
    by_name = {row['model']: row for row in rows}
    fifty = {'params': '25557112', 'gmacs': '4.089', 'reported_top1': '77.42', 'status': 'convert needed'}
    fifty.update(reported_box_ap='', reported_mask_ap='')
    assert by_name['eca_resnet50.k3557_in1k'] == {'model': 'eca_resnet50.k3557_in1k', **fifty}
    mask = by_name['maskrcnn_eca_resnet50_fpn.k3377_coco']
    assert (mask['params'], mask['gmacs']) == ('44400777', '259.34')
    assert (mask['reported_top1'], mask['reported_box_ap'], mask['reported_mask_ap']) == ('', '39.0', '35.6')
    assert by_name[DIGITS]['reported_top1'] == ''
    assert by_name[DIGITS]['status'] == 'here'
    code, output, errors = run(capsys, 'list', 'test_*', '--format', 'json')
    assert json.loads('\n'.join(output))[0]['reported_top1'] is None
    code, output, errors = run(capsys, 'list', 'test_*')
    assert output[0].split() == [
        'model', 'params', 'gmacs', 'reported_top1', 'reported_box_ap', 'reported_mask_ap', 'status',
    ]  # fmt: skip
    assert output[1].split() == [DIGITS, '373,674', '0.004', '-', '-', '-', 'here']


def test_status_tells_fetchable_from_here_and_from_damaged(hub: HubServer, hub_entry: Entry, capsys) -> None:
    name = 'eca_mobilenetv2.k13_in1k'
    entry = msgspec.structs.replace(load_manifest().models[name], checkpoint=hub_entry.checkpoint)
    record_entry(name, entry)
    assert run(capsys, 'list', name)[1][1].split()[-1] == 'fetchable'
    path = Path(run(capsys, 'fetch', name)[1][0].split('  ')[2])
    assert run(capsys, 'list', name)[1][1].split()[-1] == 'here'
    path.write_bytes(path.read_bytes()[:-1])
    assert run(capsys, 'list', name)[1][1].split()[-1] == 'damaged'


def test_broken_local_manifest_is_named_by_every_command(home: Path, capsys) -> None:
    home.mkdir()
    path = home / 'weights_manifest.yaml'
    path.write_text('version: 1\nmodels:\n  a.b: {num_classes: 1, checksum: 2}\n')
    for arguments in (['list'], ['fetch', 'all'], ['verify'], ['publish', DIGITS, '--repo', 'a/b']):
        code, output, errors = run(capsys, *arguments)
        assert (code, output) == (2, [])
        assert len(errors) == 1
        assert errors[0].startswith(f'eca-zoo {arguments[0]}: error: {path}: models.a.b.checksum: unknown key')


def test_question_is_asked_on_a_terminal_and_no_means_no(home: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr('sys.stdin', Terminal('n\n'))
    code, output, errors = run(capsys, 'fetch', 'eca_resnet50', '--from-authors')
    assert code == 2
    assert output[0].startswith(
        'No SHA-256 of eca_resnet50_k3557.pth.tar is known: this first copy from https://drive.g'
    )
    assert output[0].endswith('later copies must equal it. Download it? [y/N] ')
    assert errors[0].endswith('nobody agreed to trust the first copy; answer y, or give --yes')


def test_pickle_that_would_run_code_is_one_line_of_the_real_command(home: Path, tmp_path: Path) -> None:
    (tmp_path / 'evil.pth').write_bytes(b'cos\nsystem\n(S"touch executed"\ntR.')
    done = run_python('-m', 'eca_zoo', 'convert', 'evil.pth', cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == (
        'eca-zoo convert: error: evil.pth: refused, and nothing was executed: opening it would call os.system; a '
        'checkpoint holds tensors alone (save model.state_dict())\n'
    )
    assert [path.name for path in tmp_path.iterdir()] == ['evil.pth']
