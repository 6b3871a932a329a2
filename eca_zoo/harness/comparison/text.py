"""A comparison as text for a terminal, and as Markdown."""

from eca_zoo.harness.comparison.comparison import Comparison, RowChange


def to_text(comparison: Comparison) -> str:
    """What differs around the runs, then row by row, then what is new, gone and worse."""
    lines = [f'{comparison.old} -> {comparison.new}']
    lines += [f'  {what}: {old} -> {new}' for what, old, new in comparison.context] or ['  nothing else differs']
    for row in comparison.rows:
        lines.append(row.label)
        lines += [f'  {_mark(verdict.outcome)} {verdict.text}' for verdict in row.verdicts.values()]
        lines += [f'  ! failed: {row.error}'] if row.error else []
    lines += [f'new: {label}' for label in comparison.added]
    lines += [f'gone: {label}' for label in comparison.gone]
    lines.append(_summary(comparison))
    return '\n'.join(lines)


def to_markdown(comparison: Comparison) -> str:
    """The same as tables of Markdown."""
    lines = [f'## {_cell(comparison.old)} and {_cell(comparison.new)}', '']
    if comparison.context:
        lines += ['| differs | old | new |', '|---|---|---|']
        lines += [f'| {" | ".join(map(_cell, difference))} |' for difference in comparison.context]
        lines.append('')
    lines += ['| row | accuracy | throughput | complexity |', '|---|---|---|---|']
    lines += [f'| {_cell(row.label)} | {" | ".join(_cells(row))} |' for row in comparison.rows]
    lines.append('')
    lines += [f'- new: {_cell(label)}' for label in comparison.added]
    lines += [f'- gone: {_cell(label)}' for label in comparison.gone]
    lines.append(f'- {_summary(comparison)}')
    return '\n'.join(lines)


def _cells(row: RowChange) -> list[str]:
    if row.error is not None:
        return [f'failed: {_cell(row.error)}', '', '']
    verdicts = row.verdicts
    return [
        _cell(f'{verdicts[name].outcome}: {verdicts[name].text}') if name in verdicts else ''
        for name in ('accuracy', 'throughput', 'complexity')
    ]


def _cell(text: str) -> str:
    return ' '.join(str(text).split()).replace('|', '\\|').replace('<', '&lt;')


def _mark(outcome: str) -> str:
    return {'equal': '=', 'better': '+', 'worse': '-', 'undecidable': '?', 'different': '*'}[outcome]


def _summary(comparison: Comparison) -> str:
    count = len(comparison.regressions)
    return f'{count} regression{"" if count == 1 else "s"}'
