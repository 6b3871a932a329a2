"""Where the package finds the data files that travel with it: manifest, suites, recipes, tables, checkpoints."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# In a checkout these live outside the package, where people edit them; the wheel carries them under eca_zoo/packaged.
_CHECKOUT = {
    'weights_manifest.yaml': Path('weights_manifest.yaml'),
    'suites': Path('benchmark/suites'),
    'recipes': Path('benchmark/recipes'),
    'reference': Path('benchmark/reference'),
}


def packaged_path(name: str) -> Path:
    """Absolute path of the packaged file or folder ``name``, such as ``suites/imagenet.yaml``.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    first, _, rest = name.partition('/')
    candidates = [_PACKAGE / 'packaged' / name]
    if first in _CHECKOUT:
        candidates.append(_PACKAGE.parent / _CHECKOUT[first] / rest)
    for path in candidates:
        if path.exists():
            return path
    raise FileNotFoundError(f'eca_zoo carries no data file {name!r}; reinstall the package')


def packaged_names(folder: str) -> list[str]:
    """Names of the YAML files in the packaged ``folder``, such as the suites, without their extension."""
    return sorted(path.stem for path in packaged_path(folder).glob('*.yaml'))
