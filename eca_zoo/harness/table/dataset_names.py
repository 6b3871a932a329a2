"""What timm calls data sets in the names of its result files."""

from eca_zoo.harness.data.data_spec import IMAGENET_NAMES

# The part of the file name, and the names that the data set has elsewhere; the first is ours.
_DATASETS = {
    'imagenet': IMAGENET_NAMES,
    'imagenet-real': ('imagenet-1k-real', 'imagenet-real'),
    'imagenetv2-matched-frequency': (
        'imagenetv2-matched-frequency', 'imagenet-v2-matched-frequency', 'imagenetv2-matched-frequency-format-val',
    ),
    'sketch': ('imagenet-sketch', 'sketch'),
    'imagenet-a': ('imagenet-a',),
    'imagenet-a-clean': ('imagenet-a-clean',),
    'imagenet-r': ('imagenet-r',),
    'imagenet-r-clean': ('imagenet-r-clean',),
}  # fmt: skip


def timms_name(dataset: str) -> str | None:
    """What timm calls ``dataset`` in the names of its files; None if timm has no results on it."""
    return next((part for part, names in _DATASETS.items() if dataset.lower() in names), None)


def dataset_of(file_name: str) -> str | None:
    """The data set of a file such as ``results-imagenet-real.csv``; None if it is none of timm's."""
    part = file_name.removeprefix('results-').removesuffix('.csv')
    return _DATASETS[part][0] if part in _DATASETS and file_name == f'results-{part}.csv' else None
