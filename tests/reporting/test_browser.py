"""The page in a real browser, from a file, under its own policy."""

import csv
import io
import shutil
from xml.etree import ElementTree

import pytest

from eca_zoo.reporting.report import write_report
from tests.reporting.tables import HOSTILE, long_table, run_directory

sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed (the extra test has it)')
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; Debian's package chromium has one")


@pytest.fixture(scope='module')
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield opened
        opened.close()


@pytest.fixture(scope='module')
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp('report')
    return write_report(run_directory(folder / 'run'), against=run_directory(folder / 'earlier', more=0.2))[0]


@pytest.fixture
def open_page(browser):
    """Opens a page, and checks at the end that nothing was asked for, and nothing was refused or went wrong."""
    contexts, requests, complaints = [], [], []

    def opened(path, address='', **options):
        contexts.append(browser.new_context(**{'viewport': {'width': 1200, 'height': 900}, **options}))
        page = contexts[-1].new_page()
        page.on('request', lambda request: requests.append(request.url))
        page.on('console', lambda message: complaints.append(message.text))
        page.on('pageerror', lambda error: complaints.append(str(error)))
        page.goto(path.as_uri() + address)
        if options.get('java_script_enabled', True):
            # Polling by a script is what the policy forbids.
            page.wait_for_selector('html[data-ready]')
        return page

    yield opened
    for context in contexts:
        context.close()
    own = [url for url in requests if url.startswith(('file:', 'data:', 'blob:'))]
    assert requests == own
    assert complaints == []


def models(page):
    return [cell.inner_text() for cell in page.query_selector_all('#rows tbody th')]


def test_all_rows_are_there_as_the_table_has_them_and_hostile_texts_are_texts(open_page, page_file):
    page = open_page(page_file)
    assert len(models(page)) == 13
    assert models(page)[-1] == HOSTILE
    assert page.title() == 'Leaderboard: imagenet'
    assert page.query_selector_all('img') == []
    assert page.inner_text('#count') == '13 of 13 rows'


def test_sorting_puts_empty_cells_last_both_ways(open_page, page_file):
    page = open_page(page_file)
    button = '#rows button[data-sort="top1"]'
    page.click(button)
    assert page.get_attribute('#rows th[aria-sort]', 'aria-sort') == 'descending'
    assert models(page)[0] == 'digits'
    assert set(models(page)[-2:]) == {'eca_mobilenetv2', HOSTILE}
    page.click(button)
    assert models(page)[0] == 'slow'
    assert set(models(page)[-2:]) == {'eca_mobilenetv2', HOSTILE}


def test_filters_narrow_table_and_plot_and_stay_in_the_address(open_page, page_file):
    page = open_page(page_file)
    page.fill('#search', 'eca resnet')
    assert page.inner_text('#count') == '6 of 13 rows'
    page.click('summary:has-text("Filters")')
    page.check('input[data-facet="precision"][value="bf16"]')
    assert page.inner_text('#count') == '3 of 13 rows'
    page.select_option('#ranges select', 'top1')
    page.fill('#ranges input[data-part="low"]', '74')
    page.press('#ranges input[data-part="low"]', 'Tab')
    assert models(page) == ['eca_resnet34', 'eca_resnet50']
    address = page.url.removeprefix(page_file.as_uri())
    again = open_page(page_file, address)
    assert models(again) == ['eca_resnet34', 'eca_resnet50']
    assert again.input_value('#search') == 'eca resnet'
    again.click('#clear')
    assert again.inner_text('#count') == '13 of 13 rows'
    assert '#' not in again.url


def test_changes_since_an_earlier_run_are_a_part_of_it(open_page, page_file):
    text = open_page(page_file).inner_text('section[aria-labelledby="changes-title"]')
    assert 'eca_resnet50 fp32' in text
    assert 'not decidable' in text


def test_the_best_setting_of_each_model_is_one_row_a_model_and_data_set(open_page, page_file):
    page = open_page(page_file)
    page.check('#best')
    assert len(models(page)) == len(set(models(page))) == 8


def test_each_data_set_has_an_axis_of_its_own(open_page, page_file):
    page = open_page(page_file)
    titles = [svg.get_attribute('aria-label') for svg in page.query_selector_all('#plot svg')]
    assert titles == ['top-1 against images/s on digits: 1 points', 'top-1 against images/s on imagenet-1k: 11 points']


def test_the_front_is_of_one_setting_and_overlapping_intervals_are_ties(open_page, page_file):
    page = open_page(page_file)
    said = []
    page.focus('#plot')
    for _ in range(12):
        page.keyboard.press('ArrowRight')
        said.append(page.inner_text('#status'))
    fronts = {text.split(':')[0] for text in said if 'on the front' in text}
    assert fronts == {'digits', 'eca_resnet18', 'eca_resnet34', 'eca_resnet50', 'resnet50'}
    # 77.3 and 77.4 of 50,000 images overlap; the slower of both settings says so.
    ties = [text for text in said if 'is within the interval' in text]
    assert sorted(text.split(':')[0] for text in ties) == ['resnet50', 'resnet50'] or len(ties) == 2
    assert any(text.startswith('eca_mobilenetv2: reported top-1 72.56 %') for text in said)


def test_four_rows_can_be_pinned_and_compared_with_the_first(open_page, page_file):
    page = open_page(page_file)
    for line in range(5):
        page.locator('#rows tbody input').nth(line).click()
    assert page.inner_text('#status') == '4 rows are pinned; unpin one first'
    text = page.inner_text('#pins')
    assert '\N{MULTIPLICATION SIGN}0.600' in text
    assert '+3.300 [2.' in text
    page.locator('#pins button').first.click()
    assert len(page.query_selector_all('#pins thead th')) == 3


def test_the_keyboard_alone_reads_cells_and_reasons(open_page, page_file):
    page = open_page(page_file)
    page.focus('#rows tbody th')
    page.keyboard.press('End')
    assert 'eca_resnet18, ' in page.inner_text('#status')
    page.fill('#search', 'mobilenet')
    page.focus('#rows tbody th')
    found = []
    for _ in range(12):
        page.keyboard.press('ArrowRight')
        found.append(page.inner_text('#status'))
    assert any('top1: empty: the weights need conversion' in text for text in found)


def saved(page, kind):
    with page.expect_download() as download:
        page.click(f'[data-save="{kind}"]')
    return download.value


def test_downloads_are_the_file_as_it_is_and_what_is_shown(open_page, page_file):
    page = open_page(page_file)
    with open(saved(page, 'full').path(), 'rb') as file:
        assert file.read() == (page_file.parent / 'leaderboard.csv').read_bytes()
    page.fill('#search', 'resnet18')
    with open(saved(page, 'filtered').path(), newline='') as file:
        assert [row['model'] for row in csv.DictReader(file)] == ['eca_resnet18', 'eca_resnet18']
    image = saved(page, 'png')
    with open(image.path(), 'rb') as file:
        assert file.read(8) == b'\x89PNG\r\n\x1a\n'
    with open(saved(page, 'svg').path(), encoding='utf-8') as file:
        assert ElementTree.parse(file).getroot().tag == '{http://www.w3.org/2000/svg}svg'


def test_a_formula_in_a_filtered_download_is_a_text(open_page, tmp_path):
    path = tmp_path / 'table.csv'
    path.write_text('model,delta_top1\n=1+1,-0.500\n@x,+0.100\n')
    page = open_page(write_report(path)[0])
    with open(saved(page, 'filtered').path(), newline='') as file:
        assert list(csv.reader(io.StringIO(file.read()))) == [
            ['model', 'delta_top1'], ["'=1+1", '-0.500'], ["'@x", '+0.100'],
        ]  # fmt: skip


def test_long_tables_come_in_pages_of_200(open_page, tmp_path):
    page = open_page(write_report(long_table(tmp_path / 'table.csv', 450))[0])
    assert page.inner_text('#pages span') == '1 to 200 of 450 rows'
    page.click('#pages button:has-text("next")')
    page.click('#pages button:has-text("next")')
    assert page.inner_text('#pages span') == '401 to 450 of 450 rows'
    assert len(models(page)) == 50


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [390, 1200])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(open_page, page_file, scheme, width):
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='axe is not installed')
    page = open_page(page_file, color_scheme=scheme, viewport={'width': width, 'height': 800})
    page.locator('#rows tbody input').nth(0).click()
    page.locator('#rows tbody input').nth(1).click()
    page.click('summary:has-text("Filters")')
    page.click('summary:has-text("What each column means")')
    results = axe.Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert page.evaluate('document.documentElement.scrollWidth') <= width


def test_without_a_script_there_are_table_and_figure(open_page, page_file):
    page = open_page(page_file, java_script_enabled=False)
    text = page.inner_text('main')
    assert 'eca_resnet50' in text
    assert '77.400' in text
    assert page.is_visible('noscript figure svg')
    assert not page.is_visible('#search')


@pytest.mark.parametrize('rows', [0, 1])
def test_a_table_without_anything_to_plot_says_so(open_page, tmp_path, rows):
    path = tmp_path / 'table.csv'
    path.write_text('model,top1\n' + 'one,50.0\n' * rows)
    page = open_page(write_report(path)[0])
    assert page.inner_text('#count') == f'{rows} of {rows} rows'
    assert page.is_visible('#plot p.empty')
