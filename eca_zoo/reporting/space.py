"""A folder that is a static Space of the Hugging Face Hub: the page and the files that it was made from."""

from pathlib import Path

from eca_zoo.errors import InputError
from eca_zoo.files import write_atomically
from eca_zoo.reporting.contents import ENVIRONMENT_FILE, Contents

_README = """\
---
title: {title}
sdk: static
app_file: index.html
pinned: false
---

{title}: one page with the table, made by `eca-zoo report`. The table is `{table}`{environment}.
"""


def write_space(contents: Contents, page: str, folder: Path) -> list[Path]:
    """Write a static Space; returns its files. Upload it with ``hf upload --repo-type space``.

    Raises:
        InputError: ``folder`` holds other files.
        StorageError: a file cannot be written.
    """
    table = contents.source.name
    own = {'index.html', 'README.md', table, ENVIRONMENT_FILE}
    if folder.is_dir() and (others := sorted(path.name for path in folder.iterdir() if path.name not in own)):
        raise InputError(f'{folder}: holds {others[0]}, which is no part of a Space of ours; name a new folder')
    beside = contents.source.with_name(ENVIRONMENT_FILE)
    environment = f', what it ran on `{ENVIRONMENT_FILE}`' if contents.environment else ''
    readme = _README.format(title=contents.title.replace(':', ','), table=table, environment=environment)
    texts = {'index.html': page.encode(), 'README.md': readme.encode(), table: contents.source.read_bytes()}
    if contents.environment:
        texts[ENVIRONMENT_FILE] = beside.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in texts.items():
        write_atomically(folder / name, content, '--space')
    return [folder / name for name in texts]
