'use strict';
// The table as it was written, and what can be asked of it. Cells keep the CSV's digits; numbers are read from them.

const PAYLOAD = JSON.parse(document.getElementById('payload').textContent);

function decodeCells(encoded, rows) {
  if (encoded.constant !== undefined) return new Array(rows).fill(encoded.constant);
  if (encoded.list) return encoded.list;
  if (encoded.values) return encoded.cells.split(' ').map((index) => encoded.values[index]);
  return encoded.cells.split('\n');
}

// timm's published tables have commas between thousands.
const numberIn = (cell) => (cell === '' ? NaN : Number(cell.includes(',') ? cell.replaceAll(',', '') : cell));
const ROWS = PAYLOAD.rows;
const COLUMNS = PAYLOAD.columns.map((column) => {
  const text = decodeCells(column.encoded, ROWS);
  const number = column.isNumber ? Float64Array.from(text, numberIn) : null;
  return { ...column, text, number, isEmpty: column.encoded.constant === '' };
});
const BY_NAME = new Map(COLUMNS.map((column) => [column.name, column]));
const MODELS = BY_NAME.get('model').text;

const textOf = (name, row) => (BY_NAME.has(name) ? BY_NAME.get(name).text[row] : '');
const numberOf = (name, row) => {
  const column = BY_NAME.get(name);
  return column && column.number ? column.number[row] : NaN;
};
const dataSetOf = (row) => textOf('dataset', row);
const settingOf = (row) =>
  PAYLOAD.settingColumns.map((name) => textOf(name, row)).filter((cell) => cell !== '').join(' ') || '';

// The reason why a cell is empty, as it is known.
function reasonOf(name, row) {
  const reasons = PAYLOAD.reasons[MODELS[row]] || {};
  return reasons[name] || textOf('error', row) || 'not measured';
}

// Bounds of the 95 % Wilson score interval of a share, in percent; null where the number of images is not known.
function wilson(percent, images) {
  if (!(images > 0) || Number.isNaN(percent)) return null;
  const z2 = 1.959963984540054 ** 2;
  const share = Math.round((percent * images) / 100) / images;
  const centre = (share + z2 / (2 * images)) / (1 + z2 / images);
  const half = (Math.sqrt(z2) * Math.sqrt((share * (1 - share)) / images + z2 / (4 * images * images))) / (1 + z2 / images);
  return [100 * Math.max(0, centre - half), 100 * Math.min(1, centre + half)];
}

// The better of two rows of one model: more images/s, then higher accuracy, then the earlier.
function isBetter(row, other) {
  for (const name of ['infer_samples_per_sec', 'top1', 'ap']) {
    const [a, b] = [numberOf(name, row), numberOf(name, other)];
    if (Number.isNaN(a) && Number.isNaN(b)) continue;
    if (Number.isNaN(b) || a > b) return true;
    if (Number.isNaN(a) || a < b) return false;
  }
  return false;
}

function bestOfEach(rows) {
  const best = new Map();
  for (const row of rows) {
    const key = `${MODELS[row]}\n${dataSetOf(row)}`;
    if (!best.has(key) || isBetter(row, best.get(key))) best.set(key, row);
  }
  const kept = new Set(best.values());
  return rows.filter((row) => kept.has(row));
}

function filteredRows(state) {
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  const facets = [...state.facets].filter(([name, values]) => values.size && BY_NAME.has(name));
  const ranges = state.ranges.filter(({ name }) => BY_NAME.has(name) && BY_NAME.get(name).number);
  const rows = [];
  for (let row = 0; row < ROWS; row++) {
    const model = MODELS[row].toLowerCase();
    if (!words.every((word) => model.includes(word))) continue;
    if (!facets.every(([name, values]) => values.has(BY_NAME.get(name).text[row]))) continue;
    const inside = ranges.every(({ name, low, high }) => {
      const value = BY_NAME.get(name).number[row];
      return !((low !== null && !(value >= low)) || (high !== null && !(value <= high)));
    });
    if (inside) rows.push(row);
  }
  return state.best ? bestOfEach(rows) : rows;
}

const COLLATOR = new Intl.Collator('en', { numeric: true });

// Empty cells are last in both directions; equal ones keep the table's order.
function sortedRows(rows, name, descending) {
  const column = BY_NAME.get(name);
  if (!column) return rows;
  const sign = descending ? -1 : 1;
  const full = rows.filter((row) => column.text[row] !== '');
  const empty = rows.filter((row) => column.text[row] === '');
  if (column.number) full.sort((a, b) => sign * (column.number[a] - column.number[b]) || a - b);
  else full.sort((a, b) => sign * COLLATOR.compare(column.text[a], column.text[b]) || a - b);
  return full.concat(empty);
}

function csvCell(cell) {
  return /[",\n\r]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}

// A spreadsheet runs a text that begins like a formula; an apostrophe keeps it a text.
const formulaSafe = (cell) => (/^[=+\-@\t\r]/.test(cell) ? `'${cell}` : cell);

function toCsv(rows, isSafe) {
  const lines = [PAYLOAD.header.join(',')];
  const columns = PAYLOAD.header.map((name) => BY_NAME.get(name));
  for (const row of rows) {
    lines.push(
      columns.map((column) => {
        if (!column) return '';
        const cell = column.text[row];
        return csvCell(isSafe && !column.number ? formulaSafe(cell) : cell);
      }).join(','),
    );
  }
  return `${lines.join('\n')}\n`;
}
