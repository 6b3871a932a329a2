import base64
import csv
import hashlib
import json
import re

import pytest

from eca_zoo.cli import main
from eca_zoo.errors import InputError
from eca_zoo.reporting.contents import read_contents
from eca_zoo.reporting.page import command_of, counts_of, page_of
from eca_zoo.reporting.payload import encode_cells
from eca_zoo.reporting.report import write_report
from tests.reporting.tables import HOSTILE, long_table, rows, run_directory


@pytest.fixture
def run(tmp_path):
    return run_directory(tmp_path / 'run')


def payload_in(page):
    return json.loads(re.search(r'id="payload">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_is_written_beside_the_table_and_says_where(run, capsys):
    before = (run / 'leaderboard.csv').read_bytes()
    assert main(['report', str(run)]) == 0
    assert capsys.readouterr().out == f'written: {run / "report.html"}\n'
    assert (run / 'leaderboard.csv').read_bytes() == before


def test_the_same_input_gives_the_same_bytes_and_a_page_of_ours_may_be_replaced(run, tmp_path):
    first, second = write_report(run), write_report(run, tmp_path / 'again.html')
    assert first[0].read_bytes() == second[0].read_bytes()
    assert write_report(run)[0].read_bytes() == second[0].read_bytes()


def test_trainings_have_their_curves_on_it(run, tmp_path):
    log = 'kind,epoch,step,lr,loss,top1,top1_ci95\nsteps,1,10,0.1,2.0,,\nepoch,1,20,0.1,1.5,60.0,2.0\n'
    (tmp_path / 'a&b').mkdir()
    with pytest.raises(InputError, match=r'a&b: holds no log\.csv; name the --run-dir of eca-zoo train'):
        write_report(run, training_runs=[tmp_path / 'a&b'])
    (tmp_path / 'a&b' / 'log.csv').write_text(log)
    page = write_report(run, training_runs=[tmp_path / 'a&b'])[0].read_text(encoding='utf-8')
    assert 'aria-label="curves of the training a&amp;b"' in page
    assert 'learning rate' in page
    (tmp_path / 'a&b' / 'log.csv').write_text('kind,step\nsteps,ten\n')
    with pytest.raises(InputError, match='is no log of a training'):
        write_report(run, training_runs=[tmp_path / 'a&b'])


def test_detectors_have_their_average_precision_on_it(run, tmp_path):
    header = 'model,task,dataset,num_images,ap,ap_ci95,reported_ap\n'
    (tmp_path / 'coco.csv').write_text(
        header + 'a<b,bbox,coco,10,38.0,1.5,38.4\na<b,segm,coco,10,,,36.0\nc,bbox,,,,,40.0\n'
    )
    page = write_report(run, detector_runs=[tmp_path])[0].read_text(encoding='utf-8')
    assert 'aria-label="average precision of 2 detectors and tasks"' in page
    assert 'a&lt;b boxes' in page
    assert 'not measured: AP (%)' in page
    assert '36.0 / -' in page
    (tmp_path / 'coco.csv').write_text(header + 'a,bbox,coco,10,many,1.5,\n')
    with pytest.raises(InputError, match='is no table of detectors'):
        write_report(run, detector_runs=[tmp_path])
    with pytest.raises(InputError, match='name the --run-dir of a suite of detectors'):
        write_report(run, detector_runs=[tmp_path / 'nowhere'])


def test_the_policy_names_the_scripts_and_styles_own_hashes_and_nothing_else(run):
    page = page_of(read_contents(run))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    for kind, tag in (('script-src', 'script'), ('style-src', 'style')):
        (content,) = re.findall(rf'<{tag}>(.*?)</{tag}>', page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert not re.search(r'(?:src|href)\s*=\s*"', page)


def test_texts_from_outside_are_data(run):
    page = page_of(read_contents(run))
    assert HOSTILE not in page
    assert page.count('<script') == page.count('</script>') == 2
    names = payload_in(page)['columns'][0]['encoded']['cells'].split('\n')
    assert names[-1] == HOSTILE


def test_the_payload_holds_the_cells_of_the_file(run):
    payload = payload_in(page_of(read_contents(run)))
    with (run / 'leaderboard.csv').open(newline='') as file:
        table = list(csv.DictReader(file))
    for column in payload['columns']:
        encoded = column['encoded']
        if 'constant' in encoded:
            cells = [encoded['constant']] * len(table)
        elif 'values' in encoded:
            cells = [encoded['values'][int(index)] for index in encoded['cells'].split(' ')]
        else:
            cells = encoded['cells'].split('\n')
        assert cells == [row[column['name']] for row in table], column['name']


@pytest.mark.parametrize(
    'cells', [['a', 'a'], [*'abcdefgh'], ['a', '', 'b'] * 9, ['one\ntwo', 'three'], [''], ['x y', 'z'] * 8]
)
def test_encoded_cells_can_be_read_again(cells):
    encoded = encode_cells(cells)
    if 'constant' in encoded:
        read = [encoded['constant']] * len(cells)
    elif 'values' in encoded:
        read = [encoded['values'][int(index)] for index in encoded['cells'].split(' ')]
    else:
        read = encoded.get('list') or encoded['cells'].split('\n')
    assert read == cells


def test_reported_figures_belong_to_the_data_set_that_they_were_reported_on(run):
    contents = read_contents(run)
    assert contents.reported_on == {'eca_resnet50': 'imagenet-1k', 'eca_mobilenetv2': 'imagenet-1k'}
    assert counts_of(contents) == '13 rows: 12 measured, 1 with a reported accuracy only, 1 failed'


def test_the_command_is_one_that_a_reader_can_type(run):
    assert command_of(read_contents(run)) == "eca-zoo leaderboard imagenet --out 'a b'"


def test_a_network_that_meets_its_reported_figure_is_drawn_within_the_band(run):
    text = write_report(run)[0].read_text(encoding='utf-8')
    assert 'The band is the tolerance of 0.1 percentage points; 0 of 1 are outside it.' in text
    assert '77.42 / 77.400' in text


@pytest.mark.parametrize(('number', 'most'), [(1_000, 300_000), (10_000, 2_000_000)])
def test_the_page_of_many_rows_is_small(tmp_path, number, most):
    page = page_of(read_contents(long_table(tmp_path / 'table.csv', number)))
    assert len(page.encode()) <= most


def test_a_page_of_more_than_20_mb_is_refused(run, monkeypatch):
    monkeypatch.setattr('eca_zoo.reporting.page.MOST_BYTES', 2**16)
    with pytest.raises(InputError, match=r'leaderboard.csv: the page of its 13 rows would exceed'):
        page_of(read_contents(run))


def test_the_space_is_a_static_one_and_no_folder_of_others(run, tmp_path):
    written = write_report(run, space=tmp_path / 'space')
    assert sorted(path.name for path in written[1:]) == [
        'README.md',
        'environment.json',
        'index.html',
        'leaderboard.csv',
    ]
    assert 'sdk: static' in (tmp_path / 'space/README.md').read_text()
    assert (tmp_path / 'space/index.html').read_bytes() == written[0].read_bytes()
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.tex').touch()
    with pytest.raises(InputError, match=r'holds thesis.tex, which is no part of a Space'):
        write_report(run, space=tmp_path / 'mine')


def test_figures_are_the_same_bytes_when_repeated(run, tmp_path):
    pytest.importorskip('matplotlib')
    folders = [tmp_path / 'first', tmp_path / 'second']
    names = [sorted(path.name for path in write_report(run, figures=folder)[1:]) for folder in folders]
    assert names[0] == names[1]
    assert 'top1-infer_samples_per_sec-imagenet-1k.pdf' in names[0]
    for name in names[0]:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    points = (folders[0] / 'top1-infer_samples_per_sec-imagenet-1k.csv').read_text().splitlines()
    assert points[0] == 'model,setting,infer_samples_per_sec,top1,low,high,kind'
    # One point a row with a cost and a figure on ImageNet: digits and the failed network have none.
    assert len(points) - 1 == 2 * 5 + 1


def broken(run, text):
    (run / 'leaderboard.csv').write_text(text)
    return run


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('', 'it has no column model'),
        ('name,top1\na,1\n', 'it has no column model'),
        ('model,top1,colour\na,1,red\n', 'the columns colour are unknown'),
        ('model,top1,top5\na,1,2\nb,1\n', 'row 3 has 2 of 3 cells, so the table is cut off'),
        ('model,top1\na,high\n', "row 2: top1 is no number: 'high'"),
        ('model,top1,top1\na,1,2\n', 'a column is there twice'),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(run, capsys, text, reason):
    assert main(['report', str(broken(run, text))]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count('\n') == 1
    assert not (run / 'report.html').exists()


def test_what_is_in_the_way_of_the_page_is_left_alone(run, tmp_path, capsys):
    assert main(['report', str(tmp_path)]) == 2
    assert 'holds no leaderboard.csv; name the --run-dir of eca-zoo leaderboard' in capsys.readouterr().err
    thesis = tmp_path / 'thesis.html'
    thesis.write_text('<h1>mine</h1>')
    assert main(['report', str(run), '--out', str(thesis)]) == 2
    assert 'exists and is no page of eca-zoo' in capsys.readouterr().err
    assert thesis.read_text() == '<h1>mine</h1>'
    (run / 'environment.json').write_text('{')
    assert main(['report', str(run)]) == 2
    assert 'environment.json: not readable' in capsys.readouterr().err


def test_a_table_of_one_row_or_none_is_a_page_too(run):
    header = ','.join(rows()[0])
    for text in (f'{header}\n', f'{header}\n' + 'eca_resnet50' + ',' * header.count(',') + '\n'):
        assert '<h1>Leaderboard: imagenet</h1>' in page_of(read_contents(broken(run, text)))
