"""The part of the page that says what changed since an earlier run."""

import html
from collections.abc import Sequence

from eca_zoo.harness.comparison.comparison import Comparison, RowChange
from eca_zoo.reporting.sections import section, text_table

_FIGURES = ('accuracy', 'throughput', 'complexity')


def changes(comparison: Comparison) -> str:
    """What differs around the two runs, each row's verdicts, what is new and gone; regressions come first."""
    parts = [f'<p class="note">Since {html.escape(comparison.old)}.</p>']
    parts += [_list('Worse', comparison.regressions), _list('New', comparison.added), _list('Gone', comparison.gone)]
    if comparison.context:
        parts.append(text_table(('differs', 'old', 'new'), comparison.context, wraps=True))
    parts.append(text_table(('row', *_FIGURES), [_cells(row) for row in comparison.rows], wraps=True))
    return section('changes', 'Changes', *parts)


def _cells(row: RowChange) -> tuple[str, ...]:
    if row.error is not None:
        return (row.label, f'failed: {row.error}', '', '')
    found = row.verdicts
    return (row.label, *(f'{found[name].outcome}: {found[name].text}' if name in found else '' for name in _FIGURES))


def _list(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ''
    return f'<h3>{title}</h3>\n<ul>{"".join(f"<li>{html.escape(line)}</li>" for line in lines)}</ul>\n'
