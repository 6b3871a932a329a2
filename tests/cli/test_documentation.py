"""Every command, flag, path and link in the documentation is one that there is."""

import argparse
import ast
import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import eca_zoo
from eca_zoo.cli import COMMANDS, build_parser

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob('*.md')),
    *sorted((ROOT / 'benchmark').rglob('*.md')),
    *sorted((ROOT / 'docs').rglob('*.md')),
]
PARSER = build_parser()
SUBPARSERS = next(action.choices for action in PARSER._actions if isinstance(action, argparse._SubParsersAction))
FLAGS = {name: set(parser._option_string_actions) for name, parser in SUBPARSERS.items()}
SCRIPTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding='utf-8')
    for folder in ('scripts', 'benchmark/perf', 'tests')
    for path in (ROOT / folder).rglob('*')
    if path.suffix in ('.py', '.sbatch')
}
# What launches our commands, with flags of its own before them.
LAUNCHERS = ('torchrun', 'sbatch', 'srun', 'python', 'make', 'env', 'timeout')
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
by_page = pytest.mark.parametrize('page', PAGES, ids=IDS)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', page.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL)


def inline_code(page: Path) -> list[str]:
    text = re.sub(r'^```.*?^```', '', page.read_text(encoding='utf-8'), flags=re.MULTILINE | re.DOTALL)
    return [code.replace('\\|', '|') for code in re.findall(r'(?<!`)`([^`]+)`(?!`)', text.replace('\n', ' '))]


def command_lines(page: Path) -> list[list[str]]:
    """The words of each shell command on a page, comments apart."""
    lines = [line for block in blocks(page, 'sh') for line in block.replace('\\\n', ' ').splitlines()]
    words = [shlex.split(part, comments=True) for line in lines for part in line.split(' && ')]
    return [line for line in words if line]


def own_part(words: list[str]) -> list[str] | None:
    """The arguments of ``eca-zoo`` in a command, however it is started; None where it is another's."""
    while words and '=' in words[0]:
        words = words[1:]
    if words[:1] == ['eca-zoo']:
        return words[1:]
    if words[:1] and words[0] in LAUNCHERS:
        for index, word in enumerate(words):
            if word == 'eca_zoo' and words[index - 1] == '-m':
                return words[index + 1 :]
            if word == 'benchmark' and words[index - 1] == '-m':
                suite = [] if words[index + 1 : index + 2] and not words[index + 1].startswith('-') else ['imagenet']
                return ['leaderboard', *suite, '--run-dir', 'x', *words[index + 1 :]]
            if Path(word).name == 'validate.py':
                return ['validate', *words[index + 1 :]]
    return None


def script_part(words: list[str]) -> tuple[str, list[str]] | None:
    """A script of this repository in a command, and its arguments."""
    return next(((word, words[index + 1 :]) for index, word in enumerate(words) if word in SCRIPTS), None)


def problem_of(arguments: list[str]) -> str | None:
    """What the parser says against the arguments of ``eca-zoo``."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            PARSER.parse_args(arguments)
    except SystemExit as stop:
        return errors.getvalue() if stop.code else None
    return None


def flags_of(words: list[str]) -> Iterator[str]:
    for word in words:
        if re.fullmatch(r'--[a-z][a-z0-9-]*(=.*)?', word):
            yield word.partition('=')[0]


@by_page
def test_every_command_of_a_page_is_understood(page):
    wrong = []
    for words in command_lines(page):
        arguments, script = own_part(words), script_part(words)
        if arguments is not None and (problem := problem_of(arguments)):
            wrong.append(f'{" ".join(words)}: {problem}')
        if script is not None:
            unknown = [flag for flag in flags_of(script[1]) if f"'{flag}'" not in SCRIPTS[script[0]]]
            wrong += [f'{script[0]} has no {flag}' for flag in unknown if script[0].endswith('.py')]
        for word in words if words[0] in ('python', 'bash', 'sbatch') else ():
            if re.fullmatch(r'(scripts|benchmark|tests)/\S+\.\w+', word) and not (ROOT / word).exists():
                wrong.append(f'{word} is not there')
    assert wrong == []


def test_every_script_says_how_it_is_called():
    own = re.compile(r'python ((?:scripts|benchmark/perf)/\S+\.py)')
    wrong = [
        f'{path}: {named}'
        for path, text in SCRIPTS.items()
        if path.endswith('.py') and not path.startswith('tests')
        for named in own.findall(ast.get_docstring(ast.parse(text)) or '')
        if named != path and not (ROOT / named).exists()
    ]
    assert wrong == []


@by_page
def test_every_flag_that_a_page_names_is_one_of_the_command_that_it_stands_with(page):
    wrong, known = [], set().union(*FLAGS.values(), PARSER._option_string_actions)
    for code in inline_code(page):
        words = re.sub(r'[\[\]|]|\.\.\.', ' ', code).split()
        if words[:1] == ['eca-zoo'] and len(words) > 1:
            expected = FLAGS.get(words[1], set()) | set(PARSER._option_string_actions)
            wrong += [f'{code}: {words[1]}'] if words[1] not in (*COMMANDS, 'NAME') and words[1][0] != '-' else []
        elif words[:1] and words[0].startswith('--'):
            expected = known | {
                flag for flag in flags_of(words) if any(f"'{flag}'" in text for text in SCRIPTS.values())
            }
        elif (own := own_part(words)) and own[0] in FLAGS:
            expected, words = FLAGS[own[0]], own
        else:
            continue
        wrong += [f'{code}: {flag}' for flag in flags_of(words) if flag not in expected and flag not in _OTHERS]
    assert wrong == []


# Flags of other programs that pages name without the program: Docker's, torchrun's.
_OTHERS = {'--shm-size', '--nproc-per-node', '--cpus'}


@by_page
def test_every_path_and_target_that_a_page_names_is_there(page):
    wrong = []
    for code in inline_code(page):
        if re.fullmatch(r'(eca_zoo|benchmark|scripts|tests|docs)(/[\w.-]+)+/?', code):
            wrong += [] if any((root / code).exists() for root in (ROOT, page.parent)) else [code]
        if code.startswith('make '):
            target = code.split()[1]
            wrong += [] if f'\n{target}:' in (ROOT / 'Makefile').read_text(encoding='utf-8') else [code]
    assert wrong == []


@by_page
def test_every_link_of_a_page_leads_to_a_page_or_a_heading(page):
    text = re.sub(r'^```.*?^```', '', page.read_text(encoding='utf-8'), flags=re.MULTILINE | re.DOTALL)
    wrong = []
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        if re.match(r'https://[\w.-]+(/\S*)?$', target):
            continue
        place, _, anchor = target.partition('#')
        path = (page.parent / place) if place else page
        if not path.exists() or (anchor and anchor not in headings(path)):
            wrong.append(target)
    assert wrong == []


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    found = re.findall(r'^#+ (.*)$', page.read_text(encoding='utf-8'), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in found}


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), [ROOT / 'README.md']
    while waiting:
        page = waiting.pop().resolve()
        if page.suffix == '.md' and page not in reached and page.exists():
            reached.add(page)
            targets = re.findall(r'\]\(([^)#\s]+)', page.read_text(encoding='utf-8'))
            waiting += [page.parent / target for target in targets if not target.startswith('https:')]
    expected = {page.resolve() for page in PAGES if page.parent.name in ('docs', 'notes')}
    assert sorted(expected - reached) == []


@by_page
def test_python_on_a_page_is_python_and_names_what_the_package_has(page):
    for block in blocks(page, 'python'):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == 'eca_zoo':
                assert node.attr in (*eca_zoo.__all__, 'errors'), f'eca_zoo.{node.attr}'


@pytest.mark.parametrize('command', COMMANDS)
def test_commands_in_the_help_of_a_command_are_understood(command):
    text = SUBPARSERS[command].epilog or ''
    lines = [line.split() for line in text.splitlines() if line.strip().startswith(LAUNCHERS)]
    assert [problem for line in lines if (own := own_part(line)) and (problem := problem_of(own))] == []
