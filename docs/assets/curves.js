// Draws value and gradient of a loss beside each other. The build has computed the numbers from the code of the package (docs/curves.py):
// `lossboxCurves[name]` holds them for every position of the sliders, so that nothing of a loss is written a second time here.
"use strict";

const COLORS = ["#1a73e8", "#d1495b", "#2a9d5c", "#b8860b"];
const WIDTH = 360, HEIGHT = 220, LEFT = 44, RIGHT = 8, TOP = 22, BOTTOM = 26;

function ticks(low, high) {
  const step = 10 ** Math.floor(Math.log10((high - low) / 3));
  const wide = [1, 2, 5, 10].map(m => m * step).find(s => (high - low) / s <= 5);
  const marks = [];
  for (let i = Math.ceil(low / wide - 1e-9); i * wide <= high + 1e-9 * wide; i++) marks.push(Number((i * wide).toPrecision(6)));
  return marks;
}

function extent(tables, part) {
  let low = 0, high = 0;
  for (const table of tables) for (const line of table[part]) for (const y of line) { low = Math.min(low, y); high = Math.max(high, y); }
  return low === high ? [low - 1, high + 1] : [low - 0.04 * (high - low), high + 0.04 * (high - low)];
}

function panel(title, x, lines, [low, high]) {
  const first = x[0], last = x[x.length - 1];
  const across = value => LEFT + (value - first) / (last - first) * (WIDTH - LEFT - RIGHT);
  const down = value => HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
  let svg = `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${title}"><text class="title" x="${LEFT}" y="13">${title}</text>`;
  for (const mark of ticks(low, high)) {
    svg += `<line class="${mark === 0 ? "zero" : "grid"}" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${down(mark)}" y2="${down(mark)}"/>`;
    svg += `<text x="${LEFT - 5}" y="${down(mark) + 4}" text-anchor="end">${mark}</text>`;
  }
  for (const mark of ticks(first, last)) svg += `<text x="${across(mark)}" y="${HEIGHT - 8}" text-anchor="middle">${mark}</text>`;
  lines.forEach((line, index) => {
    const points = line.map((y, i) => `${across(x[i]).toFixed(1)} ${down(y).toFixed(1)}`);
    svg += `<path stroke="${COLORS[index % COLORS.length]}" d="M${points.join("L")}"/>`;
  });
  return svg + "</svg>";
}

function draw(figure) {
  const data = window.lossboxCurves[figure.dataset.loss];
  const controls = document.createElement("div"), panels = document.createElement("div"), legend = document.createElement("div");
  controls.className = "controls"; panels.className = "panels"; legend.className = "legend";
  legend.innerHTML = data.lines.length > 1 ? data.lines.map((line, i) => `<span><i style="background:${COLORS[i]}"></i>${line}</span>`).join("") : "";
  const places = data.sliders.map(slider => slider.values.indexOf(slider.start));
  const extents = ["values", "gradients"].map(part => extent(data.tables, part));
  const show = () => {
    let index = 0;  // the last slider runs fastest
    data.sliders.forEach((slider, i) => { index = index * slider.values.length + places[i]; });
    const table = data.tables[index];
    panels.innerHTML = panel("value", data.x, table.values, extents[0]) + panel("gradient", data.x, table.gradients, extents[1]);
  };
  data.sliders.forEach((slider, i) => {
    const label = document.createElement("label"), input = document.createElement("input"), output = document.createElement("output");
    Object.assign(input, { type: "range", min: 0, max: slider.values.length - 1, step: 1, value: places[i] });
    output.textContent = Number(slider.values[places[i]].toPrecision(3));
    input.addEventListener("input", () => { places[i] = Number(input.value); output.textContent = Number(slider.values[places[i]].toPrecision(3)); show(); });
    label.append(slider.name, input, output);
    controls.append(label);
  });
  figure.prepend(controls, panels, legend);
  show();
}

document.querySelectorAll("figure.curve").forEach(draw);
