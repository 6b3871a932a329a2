'use strict';
// Up to four rows side by side; the first is the baseline.

function drawPins(state) {
  const box = document.getElementById('pinned');
  box.hidden = !state.pins.length;
  const table = document.getElementById('pins');
  if (!state.pins.length) return table.replaceChildren();
  const head = element('tr', {}, element('td'));
  state.pins.forEach((row, place) => {
    head.append(element('th', { scope: 'col' }, MODELS[row], element('span', { class: 'unit' }, ` ${[settingOf(row), place ? '' : 'baseline'].filter(Boolean).join(', ')} `),
      element('button', { type: 'button', 'data-unpin': row, 'aria-label': `unpin ${MODELS[row]}` }, '×')));
  });
  const body = element('tbody');
  for (const name of [...PAYLOAD.accuracies, ...PAYLOAD.costs]) {
    const column = BY_NAME.get(name);
    if (!column || state.pins.every((row) => column.text[row] === '')) continue;
    const isAccuracy = PAYLOAD.accuracies.includes(name);
    const line = element('tr', {}, element('th', { scope: 'row' }, headingOf(column), element('span', { class: 'unit' }, ` ${column.unit}`)));
    state.pins.forEach((row, place) => line.append(pinCell(column, row, place ? state.pins[0] : null, isAccuracy)));
    body.append(line);
  }
  table.replaceChildren(element('thead', {}, head), body);
}

function pinCell(column, row, baseline, isAccuracy) {
  const text = column.text[row];
  if (text === '') return element('td', { class: 'number empty', title: reasonOf(column.name, row) }, '–');
  const cell = element('td', { class: 'number' }, text);
  if (baseline === null || column.text[baseline] === '') return cell;
  const [value, reference] = [column.number[row], column.number[baseline]];
  const against = isAccuracy ? pointsAgainst(column.name, row, baseline) : ratioText(value, reference);
  if (against) cell.append(element('span', { class: 'against' }, ` ${against}`));
  return cell;
}

const ratioText = (value, reference) => (reference > 0 ? `×${(value / reference).toFixed(3)}` : '');

// Difference in percentage points with its 95 % interval. It is Newcombe's for unpaired proportions, unless the table
// has the paired one of these very rows. Different data sets have no difference.
function pointsAgainst(name, row, baseline) {
  if (dataSetOf(row) !== dataSetOf(baseline)) return 'other data set';
  const [a, b] = [numberOf(name, row), numberOf(name, baseline)];
  const difference = `${a >= b ? '+' : '−'}${Math.abs(a - b).toFixed(3)}`;
  const isShare = name === 'top1' || name === 'top5';
  const bounds = [wilson(a, numberOf('num_images', row)), wilson(b, numberOf('num_images', baseline))];
  if (!isShare || !bounds[0] || !bounds[1]) return difference;
  const low = a - b - Math.hypot(a - bounds[0][0], bounds[1][1] - b);
  const high = a - b + Math.hypot(bounds[0][1] - a, b - bounds[1][0]);
  return `${difference} [${low.toFixed(2)}, ${high.toFixed(2)}] unpaired`;
}
