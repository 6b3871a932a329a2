"""The folders of a suite's data sets: those that it names itself, and those that are given for a run."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from eca_zoo.errors import InputError
from eca_zoo.harness.suites import Suite, ValidationData
from eca_zoo.harness.table.dataset_names import names_of

#: Folders by the name of their data set; the one under the empty name is that of the only data set, or holds them all.
Folders = Mapping[str, Path]


def with_folders(suite: Suite, folders: Folders) -> list[ValidationData]:
    """The data sets of a suite with the folders that were given for them; one without a folder is left out.

    Raises:
        InputError: a folder is given for nothing, or the one for all holds none.
    """
    if not suite.data:
        if folders:
            raise InputError(f'the suite {suite.name} names no data; leave out --data-dir, or add data to the suite')
        return []
    roots = {name: path for name, path in folders.items() if name}
    owners = [one for one in suite.data if not one.images]
    for name in roots:
        _check_name(suite, name)
    shared = folders.get('')
    if shared is not None:
        found = {one.spec.name: _folder_in(shared, one.spec.name) if len(suite.data) > 1 else None for one in owners}
        if len(owners) == 1:
            found = {name: path or shared for name, path in found.items()}
        roots = {name: path for name, path in found.items() if path is not None} | roots
        if not roots:
            raise InputError(
                f'{shared}: it holds no folder called {", ".join(found)}; name each with --data-dir NAME=DIR'
            )
    given = [_with_root(one, roots) for one in suite.data]
    return [one for one in given if one.spec.root is not None or '/' in one.spec.dataset]


def _with_root(one: ValidationData, roots: Folders) -> ValidationData:
    root = roots.get(one.images or one.spec.name)
    return one if root is None else dataclasses.replace(one, spec=dataclasses.replace(one.spec, root=root))


def _check_name(suite: Suite, name: str) -> None:
    known = {one.spec.name: one for one in suite.data}
    if name not in known:
        raise InputError(f'--data-dir {name}=...: the suite {suite.name} has no such data; it has {", ".join(known)}')
    if known[name].images:
        raise InputError(
            f'--data-dir {name}=...: its images are those of {known[name].images}; give --data-dir '
            f'{known[name].images}=DIR'
        )


def _folder_in(folder: Path, name: str) -> Path | None:
    """The folder or tar of a data set in ``folder``, by any of its names."""
    places = [folder / f'{other}{end}' for other in names_of(name) for end in ('', '.tar')]
    return next((place for place in places if place.exists()), None)
