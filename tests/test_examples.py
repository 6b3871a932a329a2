"""The example runs as it is written."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / 'examples').glob('*.py'))


@pytest.mark.parametrize('path', EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(path.parent))
    runpy.run_path(str(path), run_name='__main__')
    output = capsys.readouterr().out
    assert '(1, 10)' in output
    assert '25557112' in output
