"""The house: imports go one way, and nothing grows past what a reader takes in."""

import ast
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import eca_zoo

PACKAGE = Path(eca_zoo.__file__).parent
ROOT = PACKAGE.parent
# From the ground up; a room imports from its own floor and from those below it.
FLOORS = (
    ('vocabulary',),
    ('errors', 'files', 'progress', 'resources', 'strict_yaml'),
    (
        'weights',
        'models',
        'detection.networks',
        'detection.losses',
        'detection.run_lengths',
        'detection.torchvision_models',
    ),
    ('harness.machine',),
    ('harness.resume',),
    ('harness.data',),
    ('harness.networks',),
    ('harness.accuracy', 'harness.speed'),
    ('harness.table',),
    ('harness.suites', 'harness.suite_file', 'harness.comparison'),
    ('harness.suite_data', 'harness.leaderboard_rows', 'harness.leaderboard'),
    ('reporting', 'training', 'detection'),
    ('arguments', 'api'),
    ('cli',),
    ('__init__', '__main__'),
)
FILES = sorted(PACKAGE.rglob('*.py'))
# They are run by hand, so that nothing else notices a name that has moved.
SCRIPTS = sorted(path for folder in ('scripts', 'benchmark') for path in (ROOT / folder).rglob('*.py'))
LONGEST_FILE, LONGEST_FUNCTION, FULLEST_FOLDER = 400, 50, 13


def module_of(path: Path) -> str:
    """Name relative to the package; a room's ``__init__`` is the room."""
    name = '.'.join(path.relative_to(PACKAGE).with_suffix('').parts)
    return name.removesuffix('.__init__') if name != '__init__' else name


def floor_of(module: str) -> int | None:
    """Number of the floor; None for names that are no room's, such as ``harness`` itself."""
    for number, rooms in enumerate(FLOORS):
        if any(module == room or module.startswith(f'{room}.') for room in rooms):
            return number
    return None


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import from the package, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        for name in names:
            if name.startswith('eca_zoo.'):
                yield node.lineno, name.removeprefix('eca_zoo.')


@pytest.mark.parametrize('path', FILES, ids=module_of)
def test_no_room_imports_upwards(path):
    own = floor_of(module_of(path))
    if own is None:
        assert not list(imports_of(path)), f'{path} belongs to no floor'
        return
    upwards = [f'{path.name}:{line} imports {name}' for line, name in imports_of(path) if (floor_of(name) or 0) > own]
    assert upwards == []


def test_every_module_lies_on_a_floor():
    assert [module for module in map(module_of, FILES) if floor_of(module) is None] == ['harness']


@pytest.mark.parametrize('folder', ['eca_zoo', 'tests', 'scripts', 'benchmark'])
def test_files_functions_and_folders_stay_small(folder):
    large = []
    for path in (ROOT / folder).rglob('*.py'):
        text = path.read_text(encoding='utf-8')
        if text.count('\n') > LONGEST_FILE:
            large.append(f'{path}: {text.count(chr(10))} lines')
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1 - _docstring_lines(node)
                if length > LONGEST_FUNCTION:
                    large.append(f'{path}:{node.lineno}: {node.name} has {length} lines')
    for room in {path.parent for path in (ROOT / folder).rglob('*.py')}:
        if len(list(room.glob('*.py'))) > FULLEST_FOLDER:
            large.append(f'{room}: {len(list(room.glob("*.py")))} files')
    assert large == []


def _docstring_lines(node: ast.FunctionDef) -> int:
    text = ast.get_docstring(node, clean=False)
    return 0 if text is None else text.count('\n') + 1


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.stem)
def test_scripts_import_what_is_there(path):
    missing = []
    for line, name in imports_of(path):
        try:
            pkgutil.resolve_name(f'eca_zoo.{name}')
        except (ImportError, AttributeError):
            missing.append(f'{path.name}:{line} imports {name}')
    assert missing == []
