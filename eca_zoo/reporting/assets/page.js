'use strict';
// The page: draws what the state asks for, and changes the state when the reader does something.

let STATE = stateFromAddress(location.hash);
let FILTERED = [];

function draw({ isPlotToo = true } = {}) {
  FILTERED = filteredRows(STATE);
  drawTable(sortedRows(FILTERED, STATE.sort, STATE.descending), STATE);
  drawPins(STATE);
  if (isPlotToo) drawPlot(FILTERED, STATE);
  document.getElementById('count').textContent = `${FILTERED.length} of ${ROWS} rows`;
  remember();
}

function remember() {
  const address = addressOf(STATE);
  if (address !== location.hash) history.replaceState(null, '', address || location.pathname + location.search);
}

function change(changes, options) {
  STATE = { ...STATE, ...changes };
  draw(options);
}

function listenToControls() {
  document.getElementById('search').addEventListener('input', (event) => change({ text: event.target.value, page: 0 }));
  document.getElementById('best').addEventListener('change', (event) => change({ best: event.target.checked, page: 0 }));
  document.getElementById('log').addEventListener('change', (event) => change({ log: event.target.checked }));
  for (const id of ['x', 'y']) document.getElementById(id).addEventListener('change', (event) => change({ [id]: event.target.value }));
  document.getElementById('groups').addEventListener('change', (event) => {
    const groups = new Set(STATE.groups);
    groups[event.target.checked ? 'add' : 'delete'](event.target.dataset.group);
    change({ groups: new Set(Object.keys(PAYLOAD.groups).filter((group) => groups.has(group))) }, { isPlotToo: false });
  });
  document.getElementById('facets').addEventListener('change', (event) => {
    const facets = new Map([...STATE.facets].map(([name, values]) => [name, new Set(values)]));
    const name = event.target.dataset.facet;
    const values = facets.get(name) || new Set();
    values[event.target.checked ? 'add' : 'delete'](event.target.value);
    facets.set(name, values);
    change({ facets, page: 0 });
  });
  document.getElementById('ranges').addEventListener('change', (event) => {
    change({ ranges: rangesFromFields(), page: 0 });
    if (event.target.dataset.part === 'name') {
      const place = event.target.dataset.range;
      drawRanges(STATE);
      document.querySelector(`#ranges [data-range="${place}"][data-part="low"]`)?.focus();
    }
  });
  document.getElementById('clear').addEventListener('click', () => {
    STATE = initialState();
    drawControls(STATE);
    draw();
    say('all filters are cleared');
  });
}

function togglePin(row) {
  const pins = STATE.pins.includes(row) ? STATE.pins.filter((pin) => pin !== row) : [...STATE.pins, row];
  if (pins.length > MOST_PINS) {
    say(`${MOST_PINS} rows are pinned; unpin one first`);
    return false;
  }
  STATE = { ...STATE, pins };
  drawPins(STATE);
  drawPlot(FILTERED, STATE);
  for (const box of document.querySelectorAll('#rows input[data-row]')) box.checked = pins.includes(Number(box.dataset.row));
  remember();
  return true;
}

function listenToRows() {
  document.getElementById('rows').addEventListener('click', (event) => {
    const name = event.target.closest('button')?.dataset.sort;
    if (!name) return;
    const isSame = STATE.sort === name;
    const startsDescending = Boolean(BY_NAME.get(name).number);
    change({ sort: name, descending: isSame ? !STATE.descending : startsDescending, page: 0 }, { isPlotToo: false });
    document.querySelector(`#rows button[data-sort="${CSS.escape(name)}"]`).focus();
  });
  document.getElementById('rows').addEventListener('change', (event) => {
    if (event.target.dataset.row !== undefined && !togglePin(Number(event.target.dataset.row))) event.target.checked = false;
  });
  document.getElementById('pins').addEventListener('click', (event) => {
    const row = event.target.closest('button')?.dataset.unpin;
    if (row !== undefined) togglePin(Number(row));
  });
  document.getElementById('pages').addEventListener('click', (event) => {
    const page = event.target.closest('button')?.dataset.page;
    if (page !== undefined) change({ page: Number(page) }, { isPlotToo: false });
  });
}

function listenToPlot() {
  const box = document.getElementById('plot');
  const tip = document.getElementById('tip');
  const nearest = (event) => {
    const panel = PANELS.find(({ svg }) => svg === event.target.closest('svg'));
    if (!panel) return null;
    const bounds = panel.svg.getBoundingClientRect();
    const [x, y] = [event.clientX - bounds.left, event.clientY - bounds.top];
    const distance = (point) => Math.hypot(point.px - x, point.py - y);
    const point = panel.points.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    return distance(point) < 16 ? point : null;
  };
  box.addEventListener('pointermove', (event) => {
    const point = nearest(event);
    tip.hidden = !point;
    if (!point) return;
    tip.textContent = describePoint(point, STATE);
    tip.style.left = `${Math.min(event.clientX + 12, innerWidth - 260)}px`;
    tip.style.top = `${event.clientY + 12}px`;
  });
  box.addEventListener('pointerleave', () => { tip.hidden = true; });
  box.addEventListener('click', (event) => {
    const point = nearest(event);
    if (point) togglePin(point.row);
  });
  box.addEventListener('keydown', (event) => {
    const all = PANELS.flatMap((panel) => panel.points);
    if (!all.length || !['ArrowLeft', 'ArrowRight', 'Enter', ' '].includes(event.key)) return;
    event.preventDefault();
    if (event.key === 'Enter' || event.key === ' ') {
      if (all[KEYED.point]) togglePin(all[KEYED.point].row);
      return;
    }
    KEYED.point = (KEYED.point + (event.key === 'ArrowRight' ? 1 : -1) + all.length) % all.length;
    say(describePoint(all[KEYED.point], STATE));
  });
}

const svgText = (svg) => new XMLSerializer().serializeToString(svg);

function saveFigures(asImage) {
  PANELS.forEach(({ svg, name }, place) => {
    const file = `plot-${(name || String(place)).replace(/[^\w.-]+/g, '_')}`;
    const blob = new Blob([svgText(svg)], { type: 'image/svg+xml' });
    if (!asImage) return save(`${file}.svg`, blob);
    const image = new Image();
    image.addEventListener('load', () => {
      const canvas = element('canvas', { width: 2 * svg.clientWidth, height: 2 * svg.clientHeight });
      canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((made) => save(`${file}.png`, made));
    });
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgText(svg))}`;
  });
}

function listenToDownloads() {
  const csv = (text) => new Blob([text], { type: 'text/csv' });
  const actions = {
    filtered: () => save('filtered.csv', csv(toCsv(sortedRows(FILTERED, STATE.sort, STATE.descending), true))),
    full: () => save(PAYLOAD.file, csv(PAYLOAD.lineEnd === '\r\n' ? toCsv([...Array(ROWS).keys()], false).replaceAll('\n', '\r\n') : toCsv([...Array(ROWS).keys()], false))),
    svg: () => saveFigures(false),
    png: () => saveFigures(true),
  };
  document.getElementById('downloads').addEventListener('click', (event) => actions[event.target.dataset.save]?.());
  document.getElementById('copy')?.addEventListener('click', async () => {
    const text = document.getElementById('command').textContent;
    try {
      await navigator.clipboard.writeText(text);
      say('the command is copied');
    } catch {
      getSelection().selectAllChildren(document.getElementById('command'));
      say('the command is selected; copy it with the keyboard');
    }
  });
}

function start() {
  document.documentElement.classList.add('scripted');
  drawControls(STATE);
  draw();
  listenToTable();
  listenToControls();
  listenToRows();
  listenToPlot();
  listenToDownloads();
  addEventListener('hashchange', () => { STATE = stateFromAddress(location.hash); drawControls(STATE); draw(); });
  const redraw = () => { drawLegend(); drawPlot(FILTERED, STATE); };
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
  let waiting = 0;
  addEventListener('resize', () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(redraw); });
  document.documentElement.dataset.ready = '1';
}

start();
