"""The page as one file: texts, script, style and table in it, and a policy that lets nothing else run or load."""

import base64
import hashlib
import html
import shlex
import string
from collections.abc import Sequence
from pathlib import Path

from eca_zoo.errors import InputError
from eca_zoo.files import write_atomically
from eca_zoo.harness.table.columns import BY_NAME
from eca_zoo.reporting.contents import Contents
from eca_zoo.reporting.payload import GROUPS, as_script_data, group_of, payload_of
from eca_zoo.reporting.static import facts_as_html, figure_as_svg, table_as_html

MOST_BYTES = 20 * 2**20
_MARK = '<meta name="generator" content="eca-zoo report">'
_ASSETS = Path(__file__).parent / 'assets'
# Later ones use earlier ones.
_SCRIPTS = ('data', 'state', 'elements', 'points', 'plot', 'table', 'pins', 'controls', 'page')


def page_of(contents: Contents, sections: Sequence[str] = ()) -> str:
    """The page as HTML.

    Args:
        contents: what it shows.
        sections: more parts of it, as HTML.

    Raises:
        InputError: it would be larger than 20 MB.
    """
    script = f'(() => {{\n{"".join(_asset(f"{name}.js") for name in _SCRIPTS)}}})();'
    style = _asset('page.css')
    page = string.Template(_asset('page.html')).substitute(
        title=html.escape(contents.title),
        counts=html.escape(counts_of(contents)),
        facts=facts_as_html(contents),
        figure=figure_as_svg(contents),
        table=table_as_html(contents),
        sections='\n'.join(sections),
        columns=_columns_as_html(contents),
        payload=as_script_data(payload_of(contents)),
        script=script,
        script_hash=_csp_hash(script),
        style=style,
        style_hash=_csp_hash(style),
    )
    if len(page.encode()) > MOST_BYTES:
        raise InputError(
            f'{contents.source}: the page of its {contents.rows} rows would exceed {MOST_BYTES // 2**20} MB; '
            'report a part of the table'
        )
    return page


def write_page(page: str, path: Path) -> None:
    """Write the page; a page of ours may be replaced, another file is not.

    Raises:
        InputError: ``path`` is a folder, or a file that is no page of ours.
        StorageError: it cannot be written.
    """
    if path.is_dir():
        raise InputError(f'{path}: is a folder; name a file such as {path / "report.html"}')
    if path.is_file() and path.stat().st_size and _MARK.encode() not in path.read_bytes()[:4096]:
        raise InputError(f'{path}: exists and is no page of eca-zoo; choose another --out, or remove it')
    write_atomically(path, page.encode(), '--out')


def counts_of(contents: Contents) -> str:
    """Rows in words: how many were measured, have reported figures alone, and failed."""
    measured = reported = failed = 0
    for top1, rate, told, error in zip(
        contents.column('top1'), contents.column('infer_samples_per_sec'), contents.column('reported_top1'),
        contents.column('error'), strict=True,
    ):  # fmt: skip
        measured += bool(top1 or rate)
        reported += bool(told and not top1)
        failed += bool(error)
    rows = 'row' if contents.rows == 1 else 'rows'
    return f'{contents.rows} {rows}: {measured} measured, {reported} with a reported accuracy only, {failed} failed'


def command_of(contents: Contents) -> str:
    """The command that made the table; empty where nobody wrote it down."""
    words = [str(word) for word in contents.environment.get('command_line', ())]
    if not words:
        return ''
    first = words[0].replace('\\', '/')
    if first.endswith(('/eca-zoo', '/eca_zoo/__main__.py')):
        words[0] = 'eca-zoo'
    return shlex.join(words)


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding='utf-8')


def _csp_hash(text: str) -> str:
    return f'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'


def _columns_as_html(contents: Contents) -> str:
    lines = ['<div class="scroll" tabindex="0" role="region" aria-label="definitions of the columns"><table>']
    lines.append('<thead><tr><th scope="col">column<th scope="col">group<th scope="col">unit<th scope="col">meaning')
    lines.append('<tbody>')
    for name in contents.header:
        column = BY_NAME[name]
        cells = (GROUPS[group_of(column)], column.unit)
        lines.append(
            f'<tr><th scope="row">{html.escape(name)}{"".join(f"<td>{html.escape(cell)}" for cell in cells)}'
            f'<td class="wrap">{html.escape(column.meaning)}'
        )
    return '\n'.join([*lines, '</table></div>'])
