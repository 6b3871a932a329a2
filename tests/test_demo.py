"""The demo from end to end: what `make demo` does after installation."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

from eca_zoo.models import list_zoo

ROOT = Path(__file__).parents[1]


def test_demo_writes_the_table_with_the_digits_accuracy_and_all_six_networks(tmp_path):
    out = tmp_path / 'out'
    environment = os.environ | {'ECA_ZOO_HOME': str(tmp_path / 'home')}
    command = [
        sys.executable,
        str(ROOT / 'scripts' / 'demo.py'),
        '--out',
        str(out),
        '--epochs',
        '3',
        '--canvases',
        '12',
    ]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    table = out / 'leaderboard' / 'leaderboard.csv'
    assert f'The table is in {table}' in result.stdout
    assert f'A page of it, for a browser, is in {table.with_name("report.html")}' in result.stdout
    rows = {row['model']: row for row in csv.DictReader(table.open())}
    digits = rows['test_eca_resnet.digits']
    assert int(digits['num_images']) == 364
    assert float(digits['top1']) >= 97
    for name in [*(record.name for record in list_zoo()), 'resnet50', 'mobilenetv2_100']:
        assert rows[name]['top1'] == ''
        assert float(rows[name]['infer_gmacs']) > 0
        assert float(rows[name]['infer_samples_per_sec']) > 0
    assert 'accuracy is empty: the weights need conversion' in result.stdout
    assert re.search(r'undisturbed: best: top-1 [\d.]+ % of 364 images', result.stdout)
    assert 'killed by signal 9' in result.stdout
    assert 'The killed run ends in the same bits.' in result.stdout
    assert (out / 'leaderboard' / 'environment.json').is_file()
    found = {row['task']: row for row in csv.DictReader((out / 'detection' / 'coco.csv').open()) if row['ap']}
    assert float(found['bbox']['ap50']) >= 90
    assert float(found['segm']['ap']) >= 50
    assert len(list((out / 'pictures').glob('*.png'))) == 3
    assert 'test_eca_resnet.digits' in table.with_name('report.html').read_text(encoding='utf-8')
