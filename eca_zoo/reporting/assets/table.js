'use strict';
// The table: a page of 200 rows, cells as the CSV has them, one cell at a time in the order of the Tab key.

const PAGE = 200;
// So many rows are made at once; the others of the page follow when one scrolls or moves towards them.
const AT_ONCE = 50;
// Stands for an empty cell.
const DASH = '\u2013';
let ACTIVE = { line: 0, place: 0 };
let SHOWN = { rows: [], columns: [] };

const shownColumns = (state) => COLUMNS.filter((column) => column.name === 'model' || (state.groups.has(column.group) && !column.isEmpty && column.isShown));

function drawTable(rows, state) {
  const pages = Math.max(1, Math.ceil(rows.length / PAGE));
  state.page = Math.min(state.page, pages - 1);
  const part = rows.slice(state.page * PAGE, (state.page + 1) * PAGE);
  const columns = shownColumns(state);
  SHOWN = { rows: part, columns };
  ACTIVE = { line: 0, place: 0 };
  const table = document.getElementById('rows');
  const key = columns.map((column) => column.name).join();
  if (table.dataset.columns !== key) {
    table.dataset.columns = key;
    table.replaceChildren(widthsOf(columns), element('thead'), element('tbody'));
  }
  table.tHead.replaceWith(headOf(columns, state));
  document.getElementById('rows-scroll').scrollTop = 0;
  fillBody(table.tBodies[0], part.slice(0, AT_ONCE), columns, state);
  drawPages(rows.length, pages, state);
}

function headOf(columns, state) {
  const groups = element('tr', {}, element('td', { class: 'pin' }));
  for (let place = 0; place < columns.length; ) {
    const group = columns[place].group;
    let span = 1;
    while (place + span < columns.length && columns[place + span].group === group) span++;
    groups.append(element('th', { scope: 'colgroup', colspan: span, class: 'group' }, PAYLOAD.groups[group]));
    place += span;
  }
  const names = element('tr', {}, element('th', { scope: 'col', class: 'pin' }, 'pin'));
  for (const column of columns) {
    const isSorted = state.sort === column.name;
    const order = isSorted ? (state.descending ? 'descending' : 'ascending') : null;
    const mark = isSorted ? (state.descending ? ' ▼' : ' ▲') : '';
    const unit = column.unit ? element('span', { class: 'unit' }, ` ${column.unit}`) : '';
    names.append(
      element('th', { scope: 'col', 'aria-sort': order, class: column.number ? 'number' : null },
        element('button', { type: 'button', 'data-sort': column.name, title: `${column.name}: ${column.meaning}` }, headingOf(column), unit, mark)),
    );
  }
  return element('thead', {}, groups, names);
}

// With widths that are known before, a browser need not measure every cell.
const CHARACTERS = new Map(COLUMNS.map((column) => [column, column.text.reduce((most, text) => Math.max(most, text.length), 0)]));

function widthsOf(columns) {
  const group = element('colgroup', {}, element('col'));
  group.firstChild.style.width = '2.6rem';
  for (const column of columns) {
    const unit = column.unit.length * 0.85;
    const width = Math.min(46, Math.max(CHARACTERS.get(column), headingOf(column).length * 1.1 + unit + 3)) * 0.6 + 1.4;
    group.append(element('col'));
    group.lastChild.style.width = `${width}em`;
  }
  return group;
}

// Rows that are there already take other texts: that is quicker than new ones.
function fillBody(body, rows, columns, state) {
  const pinned = new Set(state.pins);
  while (body.rows.length > rows.length) body.lastChild.remove();
  const pattern = body.rows.length < rows.length ? patternRow(columns) : null;
  while (body.rows.length < rows.length) body.append(pattern.cloneNode(true));
  let made = body.firstChild;
  for (const row of rows) {
    const box = made.firstChild.firstChild;
    box.checked = pinned.has(row);
    box.setAttribute('aria-label', `pin ${MODELS[row]} ${settingOf(row)}`.trim());
    box.dataset.row = row;
    made.className = textOf('error', row) ? 'failed' : '';
    let cell = made.firstChild.nextSibling;
    for (const column of columns) {
      const text = column.text[row] || DASH;
      if (cell.firstChild.data !== text) {
        cell.firstChild.data = text;
        cell.classList.toggle('empty', text === DASH);
        cell.removeAttribute('title');
      }
      cell = cell.nextSibling;
    }
    made = made.nextSibling;
  }
  for (const cell of body.querySelectorAll('[tabindex="0"]')) cell.tabIndex = -1;
  cellAt(ACTIVE.line, ACTIVE.place)?.setAttribute('tabindex', 0);
}

// Make the rows of the page up to this line.
function reach(line) {
  const body = document.getElementById('rows').tBodies[0];
  if (line >= body.rows.length && body.rows.length < SHOWN.rows.length) {
    fillBody(body, SHOWN.rows.slice(0, Math.max(line + 1, body.rows.length + AT_ONCE)), SHOWN.columns, STATE);
  }
}

function patternRow(columns) {
  const row = element('tr', {}, element('td', { class: 'pin' }, element('input', { type: 'checkbox' })));
  for (const column of columns) {
    const isName = column.name === 'model';
    row.append(element(isName ? 'th' : 'td', { scope: isName ? 'row' : null, tabindex: -1, class: column.number ? 'number' : null }, ' '));
  }
  return row;
}

function drawPages(count, pages, state) {
  const box = document.getElementById('pages');
  const first = count ? state.page * PAGE + 1 : 0;
  box.replaceChildren(element('span', {}, `${first} to ${Math.min(count, (state.page + 1) * PAGE)} of ${count} rows`));
  if (pages === 1) return;
  box.append(
    element('button', { type: 'button', 'data-page': state.page - 1, disabled: state.page === 0 }, 'previous'),
    element('button', { type: 'button', 'data-page': state.page + 1, disabled: state.page === pages - 1 }, 'next'),
  );
}

const cellAt = (line, place) => document.getElementById('rows').tBodies[0]?.rows[line]?.cells[place + 1];

function moveCell(lines, places) {
  const line = Math.max(0, Math.min(SHOWN.rows.length - 1, ACTIVE.line + lines));
  const place = Math.max(0, Math.min(SHOWN.columns.length - 1, ACTIVE.place + places));
  reach(line);
  cellAt(line, place)?.focus();
}

// What a cell means, or why it is empty.
function describeCell(line, place) {
  const [row, column] = [SHOWN.rows[line], SHOWN.columns[place]];
  if (row === undefined || !column) return '';
  const text = column.text[row];
  const value = text === '' ? `empty: ${reasonOf(column.name, row)}` : `${text}${column.unit ? ` ${column.unit}` : ''}`;
  return `${MODELS[row]}, ${column.name}: ${value}. ${column.meaning}.`;
}

function listenToTable() {
  const table = document.getElementById('rows');
  const scroll = document.getElementById('rows-scroll');
  scroll.addEventListener('scroll', () => {
    if (scroll.scrollTop + 2 * scroll.clientHeight > scroll.scrollHeight) reach(table.tBodies[0].rows.length);
  });
  addEventListener('beforeprint', () => reach(SHOWN.rows.length - 1));
  const placeOf = (cell) => [cell.parentNode.sectionRowIndex, cell.cellIndex - 1];
  table.addEventListener('focusin', (event) => {
    const cell = event.target.closest('tbody td:not(.pin), tbody th');
    if (!cell) return;
    cellAt(ACTIVE.line, ACTIVE.place)?.setAttribute('tabindex', -1);
    cell.tabIndex = 0;
    [ACTIVE.line, ACTIVE.place] = placeOf(cell);
    say(describeCell(ACTIVE.line, ACTIVE.place));
  });
  table.addEventListener('keydown', (event) => {
    if (!event.target.matches('tbody td:not(.pin), tbody th')) return;
    const moves = {
      ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
      PageUp: [-10, 0], PageDown: [10, 0], Home: [0, -1000], End: [0, 1000],
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    moveCell(...moves[event.key]);
  });
  table.addEventListener('mouseover', (event) => {
    const cell = event.target.closest('tbody td.empty');
    if (cell && !cell.title) cell.title = describeCell(...placeOf(cell));
  });
}
