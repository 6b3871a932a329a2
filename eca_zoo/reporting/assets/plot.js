'use strict';
// Accuracy against cost as SVG: an axis for each data set, a shape and colour for each setting.

const MARGIN = { left: 52, right: 14, top: 26, bottom: 44 };
let PANELS = [];
let KEYED = { panel: 0, point: -1 };

function colours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  return {
    ink: read('--ink'), quiet: read('--quiet'), line: read('--line'), paper: read('--paper'),
    settings: Array.from({ length: 7 }, (_, number) => read(`--setting-${number}`)),
  };
}

function outline(shape, x, y, r) {
  const at = (value) => value.toFixed(1);
  switch (shape) {
    case 'square': return `M${at(x - r)} ${at(y - r)}h${2 * r}v${2 * r}h${-2 * r}z`;
    case 'triangle': return `M${at(x)} ${at(y - r * 1.2)}L${at(x + r * 1.1)} ${at(y + r * 0.8)}H${at(x - r * 1.1)}z`;
    case 'diamond': return `M${at(x)} ${at(y - r * 1.3)}L${at(x + r * 1.3)} ${at(y)}L${at(x)} ${at(y + r * 1.3)}L${at(x - r * 1.3)} ${at(y)}z`;
    case 'turned': return `M${at(x)} ${at(y + r * 1.2)}L${at(x + r * 1.1)} ${at(y - r * 0.8)}H${at(x - r * 1.1)}z`;
    default: return `M${at(x - r)} ${at(y)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
  }
}

function drawPlot(rows, state) {
  const box = document.getElementById('plot');
  const panels = [...pointsOf(rows, state.x, state.y)];
  box.replaceChildren();
  PANELS = [];
  if (!panels.length) {
    box.append(element('p', { class: 'empty' }, emptyPlotText(rows, state)));
    return;
  }
  const width = box.clientWidth || 640;
  const each = panels.length > 1 && width >= 720 ? Math.floor(width / 2) - 8 : width;
  for (const [name, points] of panels) {
    const svg = panelOf(name, points, state, each, panels.length > 1 ? 300 : 360);
    box.append(svg);
  }
}

function emptyPlotText(rows, state) {
  if (!rows.length) return 'No row is left; clear a filter to see points.';
  const [x, y] = [BY_NAME.get(state.x), BY_NAME.get(state.y)];
  return `No row has both ${headingOf(y)} and ${headingOf(x)}, so there is no point to draw; choose another axis.`;
}

const headingOf = (column) => (column ? column.heading || column.name : '');
const axisTitle = (name) => {
  const column = BY_NAME.get(name);
  return `${headingOf(column)}${column.unit && column.unit !== headingOf(column) ? ` (${column.unit})` : ''}`;
};

function panelOf(name, points, state, width, height) {
  const paint = colours();
  const isLog = state.log && points.every((point) => point.x > 0);
  const x = scaleOf(points.map((point) => point.x), isLog, MARGIN.left, width - MARGIN.right);
  const pinned = new Set(state.pins);
  const heights = points.map((point) => point.y);
  for (const point of points) if (point.bounds && (point.isFront || pinned.has(point.row))) heights.push(...point.bounds);
  const y = scaleOf(heights, false, height - MARGIN.bottom, MARGIN.top);
  const title = name || 'data set not named';
  const svg = drawn('svg', {
    width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', 'font-family': 'system-ui, sans-serif', 'font-size': 11,
    'aria-label': `${headingOf(BY_NAME.get(state.y))} against ${headingOf(BY_NAME.get(state.x))} on ${title}: ${points.length} points`,
  });
  svg.append(drawn('rect', { width, height, fill: paint.paper }));
  svg.append(drawn('text', { x: MARGIN.left, y: 16, fill: paint.ink, 'font-weight': 600, 'font-size': 12 }, title));
  drawAxes(svg, x, y, isLog, state, width, height, paint);
  for (const point of points) [point.px, point.py] = [x.at(point.x), y.at(point.y)];
  drawFronts(svg, points, isLowerBetter(state.x), paint);
  drawWhiskers(svg, points, pinned, y, paint);
  drawMarks(svg, points, pinned, paint);
  drawNames(svg, points, pinned, width, paint);
  const order = [...points].sort((a, b) => a.px - b.px || a.row - b.row);
  PANELS.push({ svg, name: title, points: order });
  return svg;
}

function drawAxes(svg, x, y, isLog, state, width, height, paint) {
  const floor = height - MARGIN.bottom;
  const grid = [];
  for (const tick of ticks(y.low, y.high, false, 6)) {
    grid.push(`M${MARGIN.left} ${y.at(tick).toFixed(1)}H${width - MARGIN.right}`);
    svg.append(drawn('text', { x: MARGIN.left - 6, y: y.at(tick) + 4, fill: paint.quiet, 'text-anchor': 'end' }, tickText(tick)));
  }
  for (const tick of ticks(x.low, x.high, isLog, Math.max(3, Math.floor(width / 70)))) {
    grid.push(`M${x.at(tick).toFixed(1)} ${MARGIN.top}V${floor}`);
    svg.append(drawn('text', { x: x.at(tick), y: floor + 15, fill: paint.quiet, 'text-anchor': 'middle' }, tickText(tick)));
  }
  svg.append(drawn('path', { d: grid.join(''), stroke: paint.line, fill: 'none' }));
  const arrow = isLowerBetter(state.x) ? '← cheaper' : 'faster →';
  svg.append(drawn('text', { x: (width + MARGIN.left) / 2, y: height - 8, fill: paint.ink, 'text-anchor': 'middle' },
    `${axisTitle(state.x)}${isLog ? ', logarithmic' : ''}  ${arrow}`));
  const middle = (MARGIN.top + floor) / 2;
  svg.append(drawn('text', { x: 12, y: middle, fill: paint.ink, 'text-anchor': 'middle', transform: `rotate(-90 12 ${middle})` }, axisTitle(state.y)));
}

const colourOf = (point, paint) => paint.settings[point.setting % 7];
const shapeOf = (point) => SHAPES[(point.setting + Math.floor(point.setting / 7)) % SHAPES.length];

// Steps: what the best accuracy is for at most this cost.
function drawFronts(svg, points, lowerIsBetter, paint) {
  const lines = new Map();
  for (const point of points) {
    if (!point.isFront) continue;
    if (!lines.has(point.setting)) lines.set(point.setting, []);
    lines.get(point.setting).push(point);
  }
  for (const members of lines.values()) {
    members.sort((a, b) => a.px - b.px);
    const d = members.map(({ px, py }, place) => {
      const [x, y] = [px.toFixed(1), py.toFixed(1)];
      if (!place) return `M${x} ${y}`;
      return lowerIsBetter ? `H${x}V${y}` : `V${y}H${x}`;
    }).join('');
    svg.append(drawn('path', { d, fill: 'none', stroke: colourOf(members[0], paint), 'stroke-dasharray': '4 3' }));
  }
}

function drawWhiskers(svg, points, pinned, y, paint) {
  const lines = points.filter((point) => point.bounds && (point.isFront || pinned.has(point.row))).map(({ px, bounds }) => {
    const [low, high] = bounds.map((bound) => y.at(bound).toFixed(1));
    return `M${px.toFixed(1)} ${low}V${high}m-3 0h6M${(px - 3).toFixed(1)} ${low}h6`;
  });
  svg.append(drawn('path', { d: lines.join(''), stroke: paint.quiet, fill: 'none' }));
}

function drawMarks(svg, points, pinned, paint) {
  const groups = new Map();
  for (const point of points) {
    const key = `${point.setting} ${point.isMeasured}`;
    if (!groups.has(key)) groups.set(key, { point, d: [] });
    groups.get(key).d.push(outline(shapeOf(point), point.px, point.py, 4));
  }
  for (const { point, d } of groups.values()) {
    const colour = colourOf(point, paint);
    svg.append(drawn('path', { d: d.join(''), fill: point.isMeasured ? colour : 'none', stroke: colour, 'stroke-width': 1.5, 'fill-opacity': 0.8 }));
  }
  const rings = points.filter((point) => point.isTie).map((point) => outline('circle', point.px, point.py, 8));
  if (rings.length) svg.append(drawn('path', { d: rings.join(''), fill: 'none', stroke: paint.quiet, 'stroke-dasharray': '2 2' }));
  const marked = points.filter((point) => pinned.has(point.row)).map((point) => outline('circle', point.px, point.py, 7));
  if (marked.length) svg.append(drawn('path', { d: marked.join(''), fill: 'none', stroke: paint.ink, 'stroke-width': 2 }));
}

// Names of pinned points and of the front, where they do not cover each other.
function drawNames(svg, points, pinned, width, paint) {
  const boxes = [];
  const named = points.filter((point) => pinned.has(point.row) || point.isFront || points.length <= 12);
  named.sort((a, b) => pinned.has(b.row) - pinned.has(a.row) || b.y - a.y);
  for (const point of named) {
    const name = MODELS[point.row];
    const [length, isLeft] = [name.length * 6, point.px + 8 + name.length * 6 > width];
    const box = [isLeft ? point.px - 8 - length : point.px + 8, point.py - 12, length, 13];
    const covers = boxes.some(([x, y, w, h]) => box[0] < x + w && x < box[0] + box[2] && box[1] < y + h && y < box[1] + box[3]);
    if (covers || boxes.length >= 12) continue;
    boxes.push(box);
    svg.append(drawn('text', { x: isLeft ? point.px - 8 : point.px + 8, y: point.py - 2, fill: paint.ink, stroke: paint.paper,
      'stroke-width': 3, 'paint-order': 'stroke', 'stroke-linejoin': 'round', 'text-anchor': isLeft ? 'end' : 'start' }, name));
  }
}

function describePoint(point, state) {
  const [x, y] = [BY_NAME.get(state.x), BY_NAME.get(state.y)];
  const figure = point.isMeasured ? `${headingOf(y)} ${y.text[point.row]}` : `reported ${headingOf(y)} ${textOf(`reported_${state.y}`, point.row)}`;
  const bounds = point.bounds ? ` (95 %: ${point.bounds[0].toFixed(2)} to ${point.bounds[1].toFixed(2)})` : '';
  const notes = [point.isFront && 'on the front', point.isTie && 'the next on the front is within the interval'].filter(Boolean);
  return [`${MODELS[point.row]}: ${figure}${y.unit ? ` ${y.unit}` : ''}${bounds}`, `${headingOf(x)} ${x.text[point.row]} ${x.unit}`.trim(),
    settingOf(point.row), ...notes].filter(Boolean).join('; ');
}
