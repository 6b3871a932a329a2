'use strict';
// Points of the plot: which rows have one, on which axis, and which of them nobody beats.

// Above this many settings colours and shapes come again; the label of a point names its setting.
const SHAPES = ['circle', 'square', 'triangle', 'diamond', 'turned'];
const SETTINGS = [...new Set(Array.from({ length: ROWS }, (_, row) => settingOf(row)))];
const SETTING_NUMBER = new Map(SETTINGS.map((setting, number) => [setting, number]));
const isLowerBetter = (cost) => !PAYLOAD.higherIsBetter.includes(cost);

// Measured and reported figures of one data set share an axis, and nothing else does.
function pointsOf(rows, x, y) {
  const panels = new Map();
  const add = (panel, point) => {
    if (!panels.has(panel)) panels.set(panel, []);
    panels.get(panel).push(point);
  };
  const reported = `reported_${y}`;
  for (const row of rows) {
    const cost = numberOf(x, row);
    if (Number.isNaN(cost)) continue;
    const accuracy = numberOf(y, row);
    const setting = SETTING_NUMBER.get(settingOf(row));
    if (!Number.isNaN(accuracy)) {
      const bounds = y === 'top1' || y === 'top5' ? wilson(accuracy, numberOf('num_images', row)) : null;
      add(dataSetOf(row), { row, x: cost, y: accuracy, setting, isMeasured: true, bounds });
    }
    const panel = PAYLOAD.reportedOn[MODELS[row]] ?? '';
    if (!Number.isNaN(numberOf(reported, row)) && !(panel === dataSetOf(row) && !Number.isNaN(accuracy))) {
      add(panel, { row, x: cost, y: numberOf(reported, row), setting, isMeasured: false, bounds: null });
    }
  }
  for (const points of panels.values()) markFronts(points, isLowerBetter(x));
  return new Map([...panels].sort(([a], [b]) => COLLATOR.compare(a, b)));
}

function markFronts(points, lowerIsBetter) {
  const bySetting = new Map();
  for (const point of points) {
    if (!point.isMeasured) continue;
    if (!bySetting.has(point.setting)) bySetting.set(point.setting, []);
    bySetting.get(point.setting).push(point);
  }
  for (const members of bySetting.values()) {
    members.sort((a, b) => (lowerIsBetter ? a.x - b.x : b.x - a.x) || b.y - a.y || a.row - b.row);
    let best = -Infinity;
    const front = members.filter((point) => {
      const isOn = point.y > best;
      if (isOn) best = point.y;
      return isOn;
    });
    front.forEach((point, place) => {
      point.isFront = true;
      const next = front[place + 1];
      point.isTie = Boolean(next && point.bounds && next.bounds && point.bounds[1] >= next.bounds[0]);
    });
  }
}

// Ticks at round numbers between two bounds.
function ticks(low, high, isLog, most) {
  if (isLog) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const digit of [1, 2, 5]) {
        const tick = Number(`${digit}e${power}`);
        if (tick >= low && tick <= high) found.push(tick);
      }
    }
    const powers = found.filter((tick) => Number.isInteger(Math.round(Math.log10(tick) * 1e9) / 1e9));
    if (found.length > most && powers.length > 1) return powers;
    if (found.length > 1) return found;
  }
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let count = Math.ceil(low / step); count * step <= high + step * 1e-9; count++) found.push(count * step);
  return found;
}

const tickText = (value) => Number(value.toPrecision(6)).toLocaleString('en', { maximumSignificantDigits: 6, useGrouping: false });

function scaleOf(values, isLog, from, to) {
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (isLog) {
    [low, high] = low === high ? [low / 1.5, high * 1.5] : [low / 1.06, high * 1.06];
  } else {
    const room = (high - low) * 0.06 || Math.abs(high) * 0.02 || 1;
    [low, high] = [low - room, high + room];
  }
  const turn = isLog ? Math.log : (value) => value;
  const at = (value) => from + ((turn(value) - turn(low)) / (turn(high) - turn(low))) * (to - from);
  return { low, high, at };
}
