'use strict';
// What the reader chose; it lives in the address, so that a link shows the same.

const MOST_PINS = 4;
const DEFAULTS = PAYLOAD.defaults;

function initialState() {
  return {
    text: '', facets: new Map(), ranges: [], best: false, sort: '', descending: false, pins: [], page: 0,
    x: DEFAULTS.x, y: DEFAULTS.y, log: true, groups: new Set(DEFAULTS.groups),
  };
}

function stateFromAddress(address) {
  const state = initialState();
  const given = new URLSearchParams(address.replace(/^#/, ''));
  const number = (text) => (text === '' || Number.isNaN(Number(text)) ? null : Number(text));
  for (const [key, value] of given) {
    if (key === 'q') state.text = value;
    else if (key === 'best') state.best = value === '1';
    else if (key === 'sort' && BY_NAME.has(value)) state.sort = value;
    else if (key === 'desc') state.descending = value === '1';
    else if (key === 'linear') state.log = value !== '1';
    else if (key === 'x' && PAYLOAD.costs.includes(value)) state.x = value;
    else if (key === 'y' && PAYLOAD.accuracies.includes(value)) state.y = value;
    else if (key === 'page') state.page = Math.max(0, Math.trunc(number(value) ?? 0));
    else if (key === 'pin') {
      state.pins = value.split(',').filter(Boolean).map(Number).filter((row) => Number.isInteger(row) && row >= 0 && row < ROWS);
      state.pins = [...new Set(state.pins)].slice(0, MOST_PINS);
    } else if (key === 'columns') state.groups = new Set(value.split(',').filter(Boolean));
    else if (key.startsWith('is.') && PAYLOAD.facets.includes(key.slice(3))) {
      const name = key.slice(3);
      state.facets.set(name, (state.facets.get(name) || new Set()).add(value));
    } else if (key.startsWith('in.') && BY_NAME.has(key.slice(3))) {
      const [low, high] = value.split('..');
      state.ranges.push({ name: key.slice(3), low: number(low ?? ''), high: number(high ?? '') });
    }
  }
  return state;
}

function addressOf(state) {
  const given = new URLSearchParams();
  if (state.text) given.set('q', state.text);
  for (const [name, values] of state.facets) for (const value of values) given.append(`is.${name}`, value);
  for (const { name, low, high } of state.ranges) {
    if (name && (low !== null || high !== null)) given.append(`in.${name}`, `${low ?? ''}..${high ?? ''}`);
  }
  if (state.best) given.set('best', '1');
  if (state.sort) given.set('sort', state.sort);
  if (state.sort && state.descending) given.set('desc', '1');
  if (state.pins.length) given.set('pin', state.pins.join(','));
  if (state.page) given.set('page', String(state.page));
  if (state.x !== DEFAULTS.x) given.set('x', state.x);
  if (state.y !== DEFAULTS.y) given.set('y', state.y);
  if (!state.log) given.set('linear', '1');
  const groups = [...state.groups].join(',');
  if (groups !== DEFAULTS.groups.join(',')) given.set('columns', groups);
  const text = given.toString();
  return text ? `#${text}` : '';
}
