"""Write what the documentation takes from the code: the columns, the kinds of data sets, the networks.

python scripts/generate_docs.py [--check]

A block begins with ``<!-- made by make docs: NAME -->`` and ends with ``<!-- end -->``.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from eca_zoo.harness.data.kinds import kinds_as_markdown
from eca_zoo.harness.suite_file import keys_as_markdown
from eca_zoo.harness.table.columns import columns_as_markdown
from eca_zoo.models.documentation import networks_as_markdown
from eca_zoo.training.recipes.recipe import recipe_as_markdown
from eca_zoo.training.record.log import columns_as_markdown as log_as_markdown

ROOT = Path(__file__).resolve().parents[1]
MAKERS: dict[str, Callable[[], str]] = {
    'suite_keys': keys_as_markdown,
    'columns': columns_as_markdown,
    'kinds': kinds_as_markdown,
    'log': log_as_markdown,
    'networks': networks_as_markdown,
    'recipe': recipe_as_markdown,
}
_BLOCK = re.compile(r'(<!-- made by make docs: (\w+) -->\n).*?(\n<!-- end -->)', re.DOTALL)


def generated(text: str) -> str:
    """``text`` with the blocks as the code makes them today."""
    return _BLOCK.sub(lambda block: block[1] + MAKERS[block[2]]() + block[3], text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='change nothing; exit with 1 if a page is out of date')
    args = parser.parse_args()
    stale = []
    for path in [ROOT / 'README.md', ROOT / 'benchmark/README.md', *sorted((ROOT / 'docs').rglob('*.md'))]:
        text = path.read_text(encoding='utf-8')
        if generated(text) != text:
            stale.append(str(path.relative_to(ROOT)))
            if not args.check:
                path.write_text(generated(text), encoding='utf-8')
    if stale:
        print(f'{"out of date, run make docs" if args.check else "written"}: {", ".join(stale)}')
    return 1 if stale and args.check else 0


if __name__ == '__main__':
    sys.exit(main())
