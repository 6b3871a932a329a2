"""The documentation says what the code does."""

from pathlib import Path

import pytest

from scripts.generate_docs import MAKERS, generated

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'benchmark/README.md', *sorted((ROOT / 'docs').rglob('*.md'))]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_takes_from_the_code_is_up_to_date(page):
    text = page.read_text(encoding='utf-8')
    assert generated(text) == text, 'run make docs'


def test_everything_that_can_be_made_stands_somewhere():
    text = ''.join(page.read_text(encoding='utf-8') for page in PAGES)
    assert [name for name in MAKERS if f'made by make docs: {name} -->' not in text] == []
