"""``eca-zoo leaderboard``: folders of several data sets, and another baseline."""

import pytest

from eca_zoo.cli import main
from eca_zoo.cli.leaderboard import _folders
from eca_zoo.errors import InputError

SUITE = """
version: 1
models: [{name: test_eca_resnet.digits, label: a}, {name: test_eca_resnet.digits, label: b}]
data: [{name: digits, split: ''}, {name: more, split: ''}]
accuracy: {batch_size: 16, workers: 0, device: cpu}
"""


def test_a_folder_belongs_to_the_data_set_that_is_named_before_it(tmp_path):
    odd = tmp_path / 'a=b'
    odd.mkdir()
    assert _folders(['digits=one', f'{odd}']) == {'digits': 'one', '': str(odd)}
    assert _folders(None) is None
    with pytest.raises(InputError, match='was given before; name several data sets with --data-dir NAME=DIR'):
        _folders(['one', 'two'])


def test_several_data_sets_are_rows_beside_each_other_with_their_differences(tmp_path, capsys):
    from tests.harness.image_sets import write_folder

    folders = {name: write_folder(tmp_path / name, count) for name, count in (('digits', 20), ('more', 30))}
    (tmp_path / 'mine.yaml').write_text(SUITE)
    arguments = [f'--data-dir={name}={folder}/validation' for name, folder in folders.items()]
    command = ['leaderboard', str(tmp_path / 'mine.yaml'), '--run-dir', str(tmp_path / 'run'), '--baseline', 'a']
    assert main([*command, *arguments]) == 0
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ['model', 'dataset']
    assert [line.split()[:2] for line in lines[:4]] == [['a', 'digits'], ['a', 'more'], ['b', 'digits'], ['b', 'more']]
    table = (tmp_path / 'run/leaderboard.csv').read_text().splitlines()
    cells = dict(zip(table[0].split(','), table[3].split(','), strict=True))
    assert [cells[name] for name in ('delta_vs_baseline', 'p_vs_baseline', 'baseline')] == ['+0.000', '1', 'a']
    # Two networks that agree on every image: the interval is that of no difference among so many.
    assert float(cells['delta_ci95_low']) == -float(cells['delta_ci95_high'])
