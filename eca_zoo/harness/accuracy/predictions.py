"""The best guesses for each image, kept while models run and written as a Parquet file."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from eca_zoo.errors import EcaZooError, InputError, RunError, one_line
from eca_zoo.files import encode_text, replacing
from eca_zoo.harness.accuracy.results import AccuracyResult
from eca_zoo.harness.data.datasets import OpenData
from eca_zoo.harness.machine.processes import current, gather
from eca_zoo.harness.resume.journal import RunDirectory

Part = dict[str, Any]


class PredictionStore:
    """Collects guesses of all models; parts lie in the run directory, if there is one, until they are all there."""

    def __init__(self, data: OpenData, journal: RunDirectory | None, writes: bool = True) -> None:
        """Nothing collected yet; ``writes``: a file of them will be written.

        Raises:
            InputError: pyarrow is not installed, or the images of a stream have no names.
        """
        if writes:
            _parquet()
            if data.images.is_stream:
                raise InputError('the images of a streamed data set have no names; leave out --predictions')
        self._data, self._journal = data, journal
        self._parts: dict[str, list[Part]] = {}
        self._complete: dict[str, list[Part]] = {}
        self._lost: list[str] = []

    def add(self, title: str, predictions: Sequence[Mapping[str, Any]]) -> str | None:
        """Keep guesses of a model; returns the file name of the part if one was written to the run directory."""
        if not predictions:
            return None
        part = _joined(predictions)
        self._parts.setdefault(title, []).append(part)
        if self._journal is None:
            return None
        content = io.BytesIO()
        torch.save(part, content)
        # The name is the content's, so that damage is noticed.
        path = self._journal.predictions / f'{current().rank:05d}-{_digest(content.getvalue())}.pt'
        with replacing(path, '--predictions') as temporary:
            temporary.write_bytes(content.getvalue())
        return path.name

    def collect(self, title: str, files: Sequence[str | None]) -> None:
        """Put the guesses of a model together: those of all processes, and ``files`` of earlier runs."""
        parts = [part for own in gather(self._parts.pop(title, [])) for part in own]
        if current().is_main and self._journal is not None:
            parts += [part for name in files if name is not None for part in self._read(self._journal, name)]
        self._complete[title] = parts

    def _read(self, journal: RunDirectory, name: str) -> list[Part]:
        path = journal.predictions / name
        try:
            content = path.read_bytes()
            if not path.stem.endswith(_digest(content)):
                raise RunError('its content has changed')
            return [torch.load(io.BytesIO(content), weights_only=True)]
        except Exception as error:  # a file that somebody has removed or cut short
            self._lost.append(f'{path}: {one_line(error)}')
            return []

    def parts(self, title: str) -> list[Part]:
        """The guesses of a model that were put together."""
        return self._complete.get(title, [])

    def put(self, title: str, parts: list[Part]) -> None:
        """Take guesses that were put together elsewhere, in the place of those that are here."""
        self._parts.pop(title, None)
        self._complete[title] = parts

    def confusion(self, title: str) -> tuple[tuple[int, ...], ...]:
        """Class, first guess and number of images of each pair that occurs among the guesses of a model."""
        joined = _joined(self._complete.get(title, []))
        if not joined:
            return ()
        pairs = torch.stack([joined['targets'].long(), joined['guesses'][:, 0].long()], dim=1)
        found, counts = pairs.unique(dim=0, return_counts=True)
        return tuple((*pair, count) for pair, count in zip(found.tolist(), counts.tolist(), strict=True))

    def write(self, path: Path, results: Sequence[AccuracyResult]) -> None:
        """Write a row for each model and image: file, target, the best five classes, their names and probabilities.

        Raises:
            RunError: it cannot be written, or guesses of an earlier run are lost; the others are written.
        """
        if not current().is_main:
            return
        try:
            self._write(path, results)
        except EcaZooError:
            raise
        except Exception as error:
            raise RunError(f'{path}: the predictions cannot be written: {one_line(error)}') from error
        if self._lost:
            raise RunError(
                f'{path}: it lacks predictions that cannot be read back: {self._lost[0]}; --restart counts them again'
            )

    def _write(self, path: Path, results: Sequence[AccuracyResult]) -> None:
        arrow, parquet = _parquet()
        names = [encode_text(name).decode() for name in self._data.images.names()]
        columns: dict[str, list[Any]] = {name: [] for name in ('model', 'file', 'target', 'target_name')}
        columns |= {name: [] for name in ('top5_classes', 'top5_names', 'top5_probabilities')}
        if self._data.real_labels is not None:
            columns['real_labels'] = []
        for result in results:
            named = {index: encode_text(name).decode() for index, name in enumerate(result.class_names)}
            joined = _joined(self._complete.get(result.model, []))
            if not joined:
                continue
            order = joined['positions'].argsort()
            positions = joined['positions'][order].tolist()
            columns['model'] += [encode_text(result.model).decode()] * len(positions)
            columns['file'] += [names[position] for position in positions]
            targets, guesses = joined['targets'][order].tolist(), joined['guesses'][order].tolist()
            columns['target'] += targets
            columns['target_name'] += [named.get(target, '') for target in targets]
            columns['top5_classes'] += guesses
            columns['top5_names'] += [[named.get(guess, '') for guess in row] for row in guesses]
            columns['top5_probabilities'] += joined['probabilities'][order].tolist()
            if self._data.real_labels is not None:
                columns['real_labels'] += [self._data.real_labels[position] for position in positions]
        types = {
            'model': arrow.string(), 'file': arrow.string(), 'target': arrow.int32(), 'target_name': arrow.string(),
            'top5_classes': arrow.list_(arrow.int32()), 'top5_names': arrow.list_(arrow.string()),
            'top5_probabilities': arrow.list_(arrow.float32()),
            'real_labels': arrow.list_(arrow.int32()),
        }  # fmt: skip
        table = arrow.table({name: arrow.array(values, types[name]) for name, values in columns.items()})
        with replacing(path, '--predictions') as temporary:
            parquet.write_table(table, temporary)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _joined(parts: Sequence[Mapping[str, Any]]) -> Part:
    """Parts as one, on the CPU; of a part that says which of its images were ``counted``, these alone."""
    kept = [_counted({key: tensor.cpu() for key, tensor in part.items() if tensor is not None}) for part in parts]
    return {key: torch.cat([part[key] for part in kept]) for key in kept[0]} if kept else {}


def _counted(part: Part) -> Part:
    counted = part.pop('counted', None)
    return part if counted is None else {key: tensor[counted] for key, tensor in part.items()}


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError('saving predictions needs pyarrow: pip install pyarrow') from None
    return pyarrow, pyarrow.parquet
