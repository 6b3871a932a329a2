"""Continuing an evaluation: nothing is counted twice, nothing is lost, and nothing of another run is mixed in."""

import dataclasses

import pyarrow.parquet
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from eca_zoo.errors import InputError
from eca_zoo.harness.accuracy.counts import percent
from eca_zoo.harness.accuracy.evaluation import evaluate
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.accuracy.tally import DeviceTally
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.resume.journal import RunDirectory
from eca_zoo.harness.resume.signals import InterruptedRunError, StopRequest
from tests.harness.image_sets import MODEL, digits, write_folder

QUICK = EvalSettings(batch_size=8, workers=0, device='cpu')
MODELS = [ModelSpec(MODEL, label=label) for label in 'ab']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('data') / 'digits')


@pytest.fixture(autouse=True)
def _progress_at_each_batch(monkeypatch):
    monkeypatch.setattr('eca_zoo.harness.accuracy.passes._PROGRESS_EVERY', 0)


@pytest.fixture
def opened(monkeypatch):
    """Images that were decoded."""
    files: list[object] = []
    original = Image.open
    monkeypatch.setattr(Image, 'open', lambda file, *args, **kwargs: files.append(file) or original(file))
    return files


def run(folder, run_dir, stop_after=None, settings=QUICK, models=MODELS, record_every=0.0, **options):
    """Evaluate in a run directory, and ask for a stop after a number of batches."""
    stop, finished = StopRequest(), set()

    def progress(step):
        # Between two batches the images that are done are whole batches.
        finished.update([step.done] if step.done % settings.batch_size == 0 and step.done else [])
        if len(finished) == stop_after:
            stop.signal_name = 'SIGTERM'

    data = DataSpec(root=folder, **options.pop('data', {}))
    with RunDirectory(run_dir, {}) as journal:
        return evaluate(
            models, data, settings, journal=journal, progress=progress, stop=stop, record_every=record_every, **options
        )


def test_a_pass_continues_after_the_last_recorded_image(folder, tmp_path, opened):
    undisturbed = evaluate(MODELS, DataSpec(root=folder), QUICK)
    opened.clear()
    with pytest.raises(InterruptedRunError) as error:
        run(folder, tmp_path, stop_after=3)
    assert str(error.value) == f'stopped by SIGTERM; what was counted is in {tmp_path}; the same command continues'
    assert len(opened) == 3 * 8 + 8
    opened.clear()
    assert run(folder, tmp_path) == undisturbed
    assert len(opened) == 60 - 3 * 8


def test_counts_are_recorded_when_a_stop_is_asked_for_whatever_the_interval(folder, tmp_path, opened):
    with pytest.raises(InterruptedRunError):
        run(folder, tmp_path, stop_after=3, record_every=1000)
    opened.clear()
    run(folder, tmp_path)
    assert len(opened) == 60 - 3 * 8


def test_an_interruption_in_the_middle_of_a_batch_counts_no_image_twice(folder, tmp_path, monkeypatch):
    undisturbed = evaluate(MODELS, DataSpec(root=folder), QUICK)
    add, calls = DeviceTally.add, []

    def interrupted(self, *arguments):
        guesses = add(self, *arguments)
        calls.append(1)
        # The second of the two models, in its second batch.
        if len(calls) == 4:
            raise KeyboardInterrupt
        return guesses

    monkeypatch.setattr(DeviceTally, 'add', interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path, record_every=1000)
    assert run(folder, tmp_path) == undisturbed


def test_finished_rows_are_kept(folder, tmp_path, opened):
    results = run(folder, tmp_path)
    opened.clear()
    assert run(folder, tmp_path) == results
    assert opened == []


def test_a_model_that_is_added_is_evaluated_alone(folder, tmp_path, opened):
    [first] = run(folder, tmp_path, models=MODELS[:1])
    opened.clear()
    [same, second] = run(folder, tmp_path)
    assert same == first
    assert second.top1_count == first.top1_count
    assert len(opened) == 60


def test_many_stops_give_the_counts_of_none(folder, tmp_path):
    undisturbed = evaluate(MODELS, DataSpec(root=folder), QUICK)
    for _ in range(4):
        with pytest.raises(InterruptedRunError):
            run(folder, tmp_path, stop_after=1)
    assert run(folder, tmp_path) == undisturbed


def test_models_at_different_places_share_what_is_left(folder, tmp_path, opened):
    undisturbed = evaluate(MODELS, DataSpec(root=folder), QUICK)
    with pytest.raises(InterruptedRunError):
        run(folder, tmp_path, stop_after=2, models=MODELS[:1])
    with pytest.raises(InterruptedRunError):
        run(folder, tmp_path, stop_after=3, models=MODELS[1:])
    opened.clear()
    assert run(folder, tmp_path) == undisturbed
    assert len(opened) == 60 - 2 * 8


def test_without_a_run_directory_a_stop_says_how_to_have_one(folder):
    stop = StopRequest()
    stop.signal_name = 'SIGINT'
    with pytest.raises(InterruptedRunError) as error:
        evaluate(MODELS, DataSpec(root=folder), QUICK, stop=stop)
    assert str(error.value) == (
        'stopped by SIGINT; nothing was saved; with --run-dir DIR the same command would continue'
    )


@pytest.mark.parametrize(
    ('change', 'difference'),
    [
        ({'settings': dataclasses.replace(QUICK, batch_size=16)}, 'settings.batch_size 8, not 16'),
        ({'settings': dataclasses.replace(QUICK, crop_pct=0.8)}, 'settings.crop_pct null, not 0.8'),
        ({'settings': dataclasses.replace(QUICK, precision='bf16')}, 'settings.precision "fp32", not "bf16"'),
        ({'data': {'label': 'other'}}, 'data.name "digits", not "other"'),
    ],
)
def test_other_settings_are_refused_with_the_difference(folder, tmp_path, change, difference):
    run(folder, tmp_path)
    with pytest.raises(InputError) as error:
        run(folder, tmp_path, **change)
    assert str(error.value) == (
        f'{tmp_path}: it holds a run with {difference}; use another folder, or --restart to begin anew'
    )


def test_more_workers_are_no_other_settings(folder, tmp_path):
    results = run(folder, tmp_path)
    assert run(folder, tmp_path, settings=dataclasses.replace(QUICK, workers=1)) == results


def test_changed_data_are_refused(tmp_path):
    root = write_folder(tmp_path / 'digits')
    run(root, tmp_path / 'run')
    digits()[7][0].save(root / 'validation' / '7' / 'new.png')
    with pytest.raises(InputError, match=r'it holds a run with data.images 60, not 61; data.fingerprint '):
        run(root, tmp_path / 'run')


def test_changed_weights_are_refused(folder, tmp_path):
    path = tmp_path / 'weights.safetensors'
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_file(timm.create_model('test_resnet', num_classes=10).state_dict(), path)
        model = [ModelSpec('test_resnet', checkpoint=path, num_classes=10)]
        if seed == 1:
            run(folder, tmp_path / 'run', models=model)
        else:
            with pytest.raises(
                InputError, match=r'it holds a run with weights_sha256 "[0-9a-f]{64}", not "[0-9a-f]{64}"'
            ):
                run(folder, tmp_path / 'run', models=model)


def test_a_failed_model_is_tried_again(folder, tmp_path):
    missing = ModelSpec('test_resnet', checkpoint=tmp_path / 'later.safetensors', num_classes=10)
    [result] = run(folder, tmp_path / 'run', models=[ModelSpec('test_resnet', num_classes=7)])
    assert result.error is not None
    models = [missing, MODELS[0]]
    [failed, good] = run(folder, tmp_path / 'run', models=models)
    assert failed.error == f'{missing.checkpoint}: there is no such checkpoint; check --checkpoint'
    assert good.error is None
    save_file(timm.create_model('test_resnet', num_classes=10).state_dict(), missing.checkpoint)
    [now, again] = run(folder, tmp_path / 'run', models=models)
    assert now.num_images == 60
    assert again == good


def test_a_run_that_met_a_bad_image_continues_without_it(tmp_path, opened):
    root = write_folder(tmp_path / 'digits')
    expected = evaluate(MODELS, DataSpec(root=root), QUICK)
    bad = root / 'validation' / '5' / 'bad.png'
    bad.write_bytes(b'x')
    with pytest.raises(InputError, match='cannot be decoded'):
        run(root, tmp_path / 'run')
    opened.clear()
    results = run(root, tmp_path / 'run', data={'skip_bad_images': True})
    assert [(r.top1_count, r.num_images) for r in results] == [(r.top1_count, r.num_images) for r in expected]
    assert [image.name for image in results[0].skipped] == [str(bad)]
    assert len(opened) < 60


def recomputed(path, model):
    """Top-1 and top-5 in percent from a file of predictions."""
    rows = [row for row in pyarrow.parquet.read_table(path).to_pylist() if row['model'] == model]
    top1 = sum(row['target'] == row['top5_classes'][0] for row in rows)
    top5 = sum(row['target'] in row['top5_classes'] for row in rows)
    return round(percent(top1, len(rows)), 4), round(percent(top5, len(rows)), 4)


def test_predictions_are_enough_to_recompute_the_accuracy(folder, tmp_path):
    path = tmp_path / 'predictions.parquet'
    results = evaluate(MODELS, DataSpec(root=folder), QUICK, predictions=path)
    for result in results:
        assert recomputed(path, result.model) == (result.top1, result.top5)
    table = pyarrow.parquet.read_table(path)
    assert table.column_names == [
        'model', 'file', 'target', 'target_name', 'top5_classes', 'top5_names', 'top5_probabilities',
    ]  # fmt: skip
    assert table.num_rows == 120
    first = table.to_pylist()[0]
    assert first['file'] == '0/0000.png'
    assert first['target'] == 0
    assert len(first['top5_classes']) == 5
    assert first['top5_probabilities'] == sorted(first['top5_probabilities'], reverse=True)
    assert 0 < sum(first['top5_probabilities']) <= 1 + 1e-6


def test_predictions_of_a_run_that_was_stopped_are_those_of_an_undisturbed_one(folder, tmp_path):
    whole, continued = tmp_path / 'whole.parquet', tmp_path / 'continued.parquet'
    evaluate(MODELS, DataSpec(root=folder), QUICK, predictions=whole)
    for after in (2, 3):
        with pytest.raises(InterruptedRunError):
            run(folder, tmp_path / 'run', stop_after=after, predictions=continued)
    assert not continued.exists()
    run(folder, tmp_path / 'run', predictions=continued)
    assert pyarrow.parquet.read_table(continued).equals(pyarrow.parquet.read_table(whole))
    continued.unlink()
    run(folder, tmp_path / 'run', predictions=continued)
    assert pyarrow.parquet.read_table(continued).equals(pyarrow.parquet.read_table(whole))


def test_predictions_cannot_be_asked_for_later(folder, tmp_path):
    run(folder, tmp_path / 'run')
    with pytest.raises(InputError, match='it holds a run with predictions false, not true'):
        run(folder, tmp_path / 'run', predictions=tmp_path / 'late.parquet')


def test_counts_of_one_kind_of_gpu_are_continued_on_that_kind_alone(folder, tmp_path, monkeypatch):
    def on(name, driver='580.1'):
        kind = {'name': name, 'driver': driver, 'cudnn': 91900}
        monkeypatch.setattr('eca_zoo.harness.accuracy.run.hardware_kind', lambda device: kind)

    on('A100')
    with pytest.raises(InterruptedRunError):
        run(folder, tmp_path, stop_after=1)
    for other in (('H100',), ('A100', '570.1')):
        on(*other)
        with pytest.raises(InputError, match=r'gpu.*, not'):
            run(folder, tmp_path)
    on('A100')
    assert run(folder, tmp_path) == evaluate(MODELS, DataSpec(root=folder), QUICK)
