"""Top-1 and top-5 from Python."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import nn

from eca_zoo.arguments import model_specs, path_of, record, takes
from eca_zoo.errors import EcaZooError, InputError
from eca_zoo.harness.accuracy import evaluation
from eca_zoo.harness.accuracy.results import AccuracyResult, Progress
from eca_zoo.harness.accuracy.settings import EvalSettings
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.machine.processes import agreed, current
from eca_zoo.harness.networks.model_spec import ModelSpec
from eca_zoo.harness.resume.journal import RunDirectory
from eca_zoo.harness.resume.restart import restarted
from eca_zoo.harness.resume.signals import StopRequest
from eca_zoo.harness.table.class_tables import class_files
from eca_zoo.harness.table.columns import cells_of
from eca_zoo.harness.table.frames import select, to_frame
from eca_zoo.harness.table.results_file import check_place
from eca_zoo.progress import ProgressBars

if TYPE_CHECKING:
    Models = str | Path | nn.Module | Iterable[str | nn.Module] | Mapping[str, str | nn.Module]

# Settings in messages are called as the keywords are.
_KEYWORDS = {
    field.name: field.name for kind in (EvalSettings, DataSpec, ModelSpec) for field in dataclasses.fields(kind)
}


@takes(EvalSettings, DataSpec, without=('root', 'label'), earlier={'data_dir': 'data', 'root': 'data'})
def evaluate(
    models: 'Models',
    data: str | Path | None = None,
    *,
    checkpoint: str | Path | Sequence[str | Path] | None = None,
    pretrained: bool = True,
    num_classes: int | None = None,
    in_chans: int | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    run_dir: str | Path | None = None,
    restart: bool | str | Sequence[str] = False,
    predictions: str | Path | None = None,
    per_class: str | Path | None = None,
    confusion: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> pd.DataFrame:
    """Top-1 and top-5 of models on a labelled data set; each image is read once for all models of one transform.

    Args:
        models: a timm name, a pattern, ``zoo``, ``hf-hub:ORG/NAME``, ``local-dir:DIR``, a text file of names; a network
            that is built already (it is copied and not changed); a list of these; or a mapping from labels to these.
        data: folder with one folder a class, or a tar of it; None with ``dataset='hfds/...'`` and the like.
        checkpoint: file with the weights of the one model, or a folder or list of them (a row each).
        pretrained: load the weights that a name stands for; random ones otherwise.
        num_classes: of the models, if it is not what their names stand for.
        in_chans: channels of the input, if they are not what their names stand for.
        model_kwargs: further arguments of the models' entry points.
        run_dir: folder in which a killed call continues when it is made again.
        restart: forget what ``run_dir`` holds, or what it holds of some models: their names, or patterns.
        predictions: Parquet file to write with the best five classes of each image.
        per_class: file to write (.csv, .json, .md or .parquet) with what was counted of each class.
        confusion: the same with the number of images for each class and first guess.
        progress: show a progress bar on a terminal; elsewhere log a line a minute.
        **options: fields of ``EvalSettings`` (``batch_size``, ``workers``, ``img_size``, ``crop_pct``, ``device``,
            ``precision``, ...) and of ``DataSpec`` (``dataset``, ``split``, ``class_map``, ``ground_truth``,
            ``class_level``, ``real_labels``, ``valid_labels``, ...).

    Returns:
        A row for each model, in the given order, with the accuracy columns of the results table (percentages as
        ``Float64``, ``num_images`` and ``img_size`` as ``Int64``). A model that failed has its ``error`` and no
        figures. ``attrs['skipped']`` lists images that could not be decoded.

    Raises:
        InputError: an argument is wrong, or the data cannot be read.
        RunError: decoding failed as a whole, or the predictions cannot be written. ``error.measured`` is the table of
            the models that were done by then, or None.
    """
    tables: list[pd.DataFrame] = []
    try:
        evaluation_results(
            model_specs(models, checkpoint, pretrained, num_classes, in_chans, model_kwargs),
            record(DataSpec, options, root=path_of(data)),
            record(EvalSettings, options),
            run_dir=path_of(run_dir),
            restart=[restart] if isinstance(restart, str) else restart,
            predictions=path_of(predictions),
            per_class=path_of(per_class),
            confusion=path_of(confusion),
            progress=progress,
            measured=lambda results: tables.append(_accuracy_table(results)),
            names=_KEYWORDS,
        )
    except EcaZooError as error:
        error.measured = next(iter(tables), None)
        raise
    return tables[0]


def _accuracy_table(results: Sequence[AccuracyResult]) -> pd.DataFrame:
    frame = to_frame([{'model': result.model, **_cells(result)} for result in results])
    frame = select(frame, ['accuracy'], ['params', 'param_count'])
    frame.attrs['skipped'] = sorted({f'{image.name}: {image.reason}' for r in results for image in r.skipped})
    return frame


def _cells(result: AccuracyResult) -> dict[str, Any]:
    if result.error is not None:
        return {'error': result.error}
    return {**cells_of('accuracy', result), 'params': result.params, 'param_count': result.param_count}


def evaluation_results(
    models: Sequence[ModelSpec],
    data: DataSpec,
    settings: EvalSettings,
    *,
    run_dir: Path | None = None,
    restart: bool | Sequence[str] = False,
    predictions: Path | None = None,
    per_class: Path | None = None,
    confusion: Path | None = None,
    record_every: float = evaluation.RECORD_EVERY,
    progress: bool = False,
    stop: StopRequest | None = None,
    measured: Callable[[list[AccuracyResult]], None] | None = None,
    names: Mapping[str, str] | None = None,
) -> list[AccuracyResult]:
    """What ``evaluate`` counted, with the counts of each class; the other arguments are those of ``evaluate``.

    Args:
        record_every: seconds between two records of partial counts in ``run_dir``.
        stop: when it is set, what was counted is recorded and the evaluation ends.
        measured: called once, with the results of the models that are done, before anything else that can fail.
        names: of settings in messages, by default the flags of the command.
    """
    if restart and run_dir is None:
        raise InputError('--restart is about a --run-dir; name one')
    if predictions is not None:
        check_place(predictions, '--predictions')
        if predictions.suffix.lower() in ('.csv', '.json', '.md'):
            raise InputError(f'{predictions}: predictions are Parquet; name a file .parquet with --predictions')
    tables = class_files(per_class, confusion)
    if confusion is not None and data.real_labels is not None:
        raise InputError('--confusion is about one class an image; leave out --real-labels')
    processes = current()
    directory: Any = contextlib.nullcontext()
    if run_dir is not None:
        again = agreed(lambda: restarted(restart, [spec.title for spec in models]))
        directory = RunDirectory(run_dir, {'command': 'validate'}, again, processes.rank)
    with directory as journal, ProgressBars(progress and processes.is_main) as bars:

        def show(state: Progress) -> None:
            name = state.models[0] if len(state.models) == 1 else f'{len(state.models)} models'
            bars.show(name, state.done, state.total, unit='img')

        def finish(results: list[AccuracyResult]) -> None:
            bars.close()
            if measured is not None:
                measured(results)
            for write in tables if processes.is_main else ():
                write([result for result in results if result.error is None])

        return evaluation.evaluate(
            models, data, settings, journal=journal, progress=show, stop=stop, predictions=predictions,
            confusion=confusion is not None, record_every=record_every, measured=finish, names=names,
        )  # fmt: skip
