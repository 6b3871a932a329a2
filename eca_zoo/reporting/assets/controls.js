'use strict';
// Choices above the plot and the table.

function drawControls(state) {
  document.getElementById('search').value = state.text;
  document.getElementById('best').checked = state.best;
  document.getElementById('log').checked = state.log;
  fillSelect('x', PAYLOAD.costs, state.x);
  fillSelect('y', PAYLOAD.accuracies, state.y);
  drawGroups(state);
  drawFacets(state);
  drawRanges(state);
  drawLegend();
}

function fillSelect(id, names, chosen) {
  const options = names.filter((name) => BY_NAME.has(name)).map((name) => {
    const option = element('option', { value: name }, axisTitle(name));
    option.selected = name === chosen;
    return option;
  });
  document.getElementById(id).replaceChildren(...options);
}

function checkbox(text, attributes, isChecked) {
  const box = element('input', { type: 'checkbox', ...attributes });
  box.checked = isChecked;
  return element('label', {}, box, ` ${text}`);
}

function drawGroups(state) {
  const names = Object.keys(PAYLOAD.groups).filter((group) => group !== 'model' && COLUMNS.some((column) => column.group === group && column.isShown && !column.isEmpty));
  document.getElementById('groups').replaceChildren(...names.map((group) => checkbox(PAYLOAD.groups[group], { 'data-group': group }, state.groups.has(group))));
}

function drawFacets(state) {
  const boxes = PAYLOAD.facets.map((name) => {
    const column = BY_NAME.get(name);
    const values = [...new Set(column.text)].sort(COLLATOR.compare);
    const chosen = state.facets.get(name) || new Set();
    const fields = values.map((value) => checkbox(value || 'empty', { 'data-facet': name, value }, chosen.has(value)));
    return element('fieldset', {}, element('legend', {}, headingOf(column)), ...fields);
  });
  document.getElementById('facets').replaceChildren(...boxes);
}

function drawRanges(state) {
  const numeric = COLUMNS.filter((column) => column.number && !column.isEmpty);
  const lines = [...state.ranges, { name: '', low: null, high: null }].map((range, place) => {
    const select = element('select', { 'data-range': place, 'data-part': 'name', 'aria-label': 'column of the range' }, element('option', { value: '' }, 'column'));
    for (const column of numeric) {
      const option = element('option', { value: column.name }, column.name);
      option.selected = column.name === range.name;
      select.append(option);
    }
    const bound = (part) => element('input', {
      type: 'number', step: 'any', 'data-range': place, 'data-part': part, placeholder: part === 'low' ? 'from' : 'to',
      'aria-label': `${part === 'low' ? 'least' : 'greatest'} value`, value: range[part], disabled: !range.name,
    });
    return element('div', { class: 'range' }, select, bound('low'), bound('high'));
  });
  document.getElementById('ranges').replaceChildren(...lines);
}

function drawLegend() {
  const paint = colours();
  const items = SETTINGS.map((setting, number) => {
    const svg = drawn('svg', { width: 14, height: 14, 'aria-hidden': 'true' });
    svg.append(drawn('path', { d: outline(shapeOf({ setting: number }), 7, 7, 4), fill: paint.settings[number % 7] }));
    return element('li', {}, svg, ` ${setting || 'measured'}`);
  });
  const hollow = drawn('svg', { width: 14, height: 14, 'aria-hidden': 'true' });
  hollow.append(drawn('path', { d: outline('circle', 7, 7, 4), fill: 'none', stroke: paint.quiet, 'stroke-width': 1.5 }));
  items.push(element('li', {}, hollow, ' reported by the authors'));
  document.getElementById('legend').replaceChildren(...items);
}

// Read the ranges from their fields; a line without a column is none.
function rangesFromFields() {
  const ranges = [];
  for (const line of document.getElementById('ranges').children) {
    const [select, low, high] = line.children;
    const bound = (input) => (input.value === '' ? null : Number(input.value));
    if (select.value) ranges.push({ name: select.value, low: bound(low), high: bound(high) });
  }
  return ranges;
}
