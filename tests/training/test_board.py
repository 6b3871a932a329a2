"""The log for TensorBoard, where that is installed."""

import sys

import pytest

import eca_zoo
from eca_zoo.errors import InputError
from eca_zoo.training.record.board import Board

ROWS = [
    {'kind': 'steps', 'epoch': 1, 'step': 2, 'lr': 0.1, 'loss': 2.0},
    {'kind': 'epoch', 'epoch': 1, 'step': 4, 'lr': 0.1, 'loss': 1.5, 'top1': 50.0, 'val_loss': None},
]


def test_a_run_that_goes_on_hides_what_was_shown_of_steps_that_are_done_anew(tmp_path):
    event_accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    for rows in ([*ROWS, {'kind': 'steps', 'step': 6, 'loss': 9.0}], ROWS):
        board = Board(tmp_path, [])
        for row in rows:
            board.add(row)
        board.close()
    found = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    curves = {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in found.Tags()['scalars']}
    lr = pytest.approx(0.1)
    assert curves == {
        'steps/lr': [(2, lr)], 'steps/loss': [(2, 2.0)], 'epoch/lr': [(4, lr)], 'epoch/loss': [(4, 1.5)],
        'epoch/top1': [(4, 50.0)],
    }  # fmt: skip


def test_without_tensorboard_it_is_said_how_to_get_it_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorboard', None)
    with pytest.raises(InputError, match='tensorboard is not installed; pip install tensorboard'):
        eca_zoo.train('digits', run_dir=tmp_path / 'out', tensorboard=True, device='cpu')
    assert not (tmp_path / 'out').exists()
