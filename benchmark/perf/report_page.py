"""How large the page of a table is, and what it costs a browser: to be ready, to sort, to filter.

    python benchmark/perf/report_page.py TABLE.csv [--rows 1000 10000] [--rounds 9]

TABLE is any table that ``eca-zoo report`` reads; its first rows are taken, and repeated where it has too few. Processor
time is what Chromium counts for the page's own thread (``TaskDuration``): script, style, layout and painting. Needs
Chromium and playwright.
"""

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

import pandas as pd
from playwright.sync_api import CDPSession, Page, sync_playwright

from eca_zoo.reporting.report import write_report


def table_of(path: Path, rows: int, folder: Path) -> Path:
    """The first ``rows`` rows of a table, repeated under other names where there are fewer."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    parts = []
    for number in range(-(-rows // len(table))):
        parts.append(table.assign(model=table['model'] + (f'.{number}' if number else '')))
    made = folder / f'table-{rows}.csv'
    pd.concat(parts).head(rows).to_csv(made, index=False, lineterminator='\n')
    return made


def spent(session: CDPSession) -> float:
    """Milliseconds of processor time that the page has taken so far."""
    metrics = session.send('Performance.getMetrics')['metrics']
    return 1000 * next(metric['value'] for metric in metrics if metric['name'] == 'TaskDuration')


def settle(page: Page) -> None:
    """Wait until what was asked for is painted."""
    page.evaluate('() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))')


def measure(browser, page_file: Path) -> dict[str, float]:
    """Milliseconds of processor time of one visit."""
    page = browser.new_page(viewport={'width': 1280, 'height': 900})
    session = page.context.new_cdp_session(page)
    session.send('Performance.enable', {'timeDomain': 'threadTicks'})
    page.goto(page_file.as_uri())
    page.wait_for_selector('html[data-ready]')
    settle(page)
    found = {'ready': spent(session)}
    for name, act in (
        ('sort', lambda: page.click('#rows button[data-sort="model"]')),
        ('filter', lambda: page.fill('#search', 'net')),
    ):
        before = spent(session)
        act()
        settle(page)
        found[name] = spent(session) - before
    page.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('table', type=Path)
    parser.add_argument('--rows', type=int, nargs='+', default=[1_000, 10_000])
    parser.add_argument('--rounds', type=int, default=9)
    args = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        for rows in args.rows:
            (page_file,) = write_report(table_of(args.table, rows, Path(folder)))
            rounds = [measure(browser, page_file) for _ in range(args.rounds)]
            figures = []
            for name in rounds[0]:
                times = [one[name] for one in rounds]
                figures.append(f'{name} {statistics.median(times):.0f} ms ({min(times):.0f})')
            print(f'{rows} rows: {page_file.stat().st_size / 1000:.0f} kB; processor time: {", ".join(figures)}')
        browser.close()


if __name__ == '__main__':
    main()
