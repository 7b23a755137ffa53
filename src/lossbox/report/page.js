"use strict";
// Everything that comes from the data goes into the page by textContent or as an attribute, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const state = { run: 0, all: data.runs.length > 1, name: null, sort: ["oLRP", -1] };
const COLORS = 8, DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const KIND_NAMES = { localization: "loose box", classification: "other class", duplicate: "duplicate", both: "loose, other class", background: "nothing there", missed: "missed" };
const coarse = matchMedia("(pointer: coarse)").matches;

const shade = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const color = (number) => shade(`--c${number % COLORS}`);
const text = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
// plotly reads a little HTML in labels
const plain = (name) => String(name).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const brief = (name, most = 28) => plain([...String(name)].length > most ? [...String(name)].slice(0, most - 1).join("") + "…" : name);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const run = () => data.runs[state.run];
const set = () => (run().set === undefined ? null : data.sets[run().set]);
const label = () => (set() && state.name !== null ? set().classes.indexOf(state.name) : -1);
const nth = (index) => data.runs.slice(0, index).filter((other) => other.group === data.runs[index].group).length;
const line = (index) => ({ color: color(data.runs[index].group), dash: DASHES[nth(index) % DASHES.length], width: 2 });

function layout(title, x, y, more = {}) {
  const grid = shade("--line");
  const axis = (name) => ({ title: { text: name, standoff: 8 }, gridcolor: grid, zerolinecolor: grid, linecolor: grid, automargin: true });
  const { xaxis = {}, yaxis = {}, ...rest } = more;
  return {
    title: { text: title, font: { size: 14 }, x: 0, xref: "paper", xanchor: "left" }, margin: { l: 50, r: 12, t: 40, b: 44 }, height: 340,
    paper_bgcolor: shade("--paper"), plot_bgcolor: shade("--paper"), font: { color: shade("--ink"), size: 12, family: "system-ui, sans-serif" },
    hoverlabel: { bgcolor: shade("--panel"), bordercolor: grid, font: { color: shade("--ink") }, namelength: -1 },
    legend: { orientation: "h", y: -0.22, yanchor: "top", font: { size: 11 } }, dragmode: coarse ? false : "zoom", hovermode: "closest",
    xaxis: { ...axis(x), ...xaxis }, yaxis: { ...axis(y), ...yaxis }, ...rest,
  };
}

function draw(place, traces, shape, empty) {
  const target = typeof place === "string" ? $(place) : place;
  if (!traces.length) shape.annotations = [{ text: empty, showarrow: false, x: 0.5, y: 0.5, xref: "paper", yref: "paper" }];
  return Plotly.react(target, traces, shape, { responsive: true, displaylogo: false, displayModeBar: coarse ? false : "hover", modeBarButtonsToRemove: ["select2d", "lasso2d"] });
}

// -- training

function panels() {
  const names = [...new Set(data.runs.flatMap((other) => Object.keys(other.curves)))];
  if (state.all) {
    const chosen = ["val/AP", "val/oLRP", "train/total", "gradient_balance", "lr"].filter((name) => names.includes(name));
    return chosen.map((name) => [name, data.runs.flatMap((other, index) => (other.curves[name] ? [[other.name, other.curves[name], line(index)]] : []))]);
  }
  const own = run().curves;
  const some = (title, test) => [title, Object.keys(own).filter(test).map((name, index) => [name, own[name], { color: color(index), width: 2, dash: name.startsWith("val/") && title.startsWith("Loss") ? "dot" : "solid" }])];
  const losses = names.filter((name) => name.startsWith("train/") && name !== "train/total").map((name) => name.slice(6));
  return [
    some("Validation", (name) => ["val/AP", "val/AP50", "val/AP75", "val/oLRP"].includes(name)),
    some("Loss parts, unweighted", (name) => losses.some((part) => name === `train/${part}` || name === `val/${part}`)),
    some("Weight of each part", (name) => name.startsWith("weight/")),
    some("Gradient balance: negatives / positives", (name) => name === "gradient_balance"),
    some("Learning rate", (name) => name === "lr"),
  ].filter(([, lines]) => lines.length);
}

function drawTraining() {
  const place = $("training-charts");
  if (!place) return;
  const shown = panels();
  while (place.children.length > shown.length) { Plotly.purge(place.lastChild); place.lastChild.remove(); }
  while (place.children.length < shown.length) place.append(element("div", { class: "chart" }));
  shown.forEach(([title, lines], index) => {
    const traces = lines.map(([name, [steps, values], style]) => ({ x: steps, y: values, name: brief(name), line: style, mode: steps.length < 60 ? "lines+markers" : "lines", marker: { size: 5 } }));
    const all = (key) => traces.flatMap((trace) => trace[key]).filter(Number.isFinite);
    const [first, last] = [Math.min(...all("x")), Math.max(...all("x"))];
    const xaxis = last - first < 6 ? { dtick: 1 } : {}; // steps are whole numbers
    const yaxis = title === "Learning rate" ? { range: [0, 1.1 * Math.max(...all("y")) || 1], exponentformat: "e" } : {};
    draw(place.children[index], traces, layout(title, "step", "", { showlegend: true, xaxis, yaxis }), "nothing was logged");
  });
}

// -- classes

const COLUMNS = [
  ["name", "class"], ["num_ground_truth", "boxes"], ["AP", "AP"], ["AP50", "AP50"], ["oLRP", "oLRP"],
  ["localization", "Loc"], ["false_positive", "FP"], ["false_negative", "FN"], ["threshold", "cut"], ["main", "most of the error"],
];

function classRows() {
  const rows = run().classes.map((row, index) => ({ ...row, name: set().classes[index] }));
  const [key, sign] = state.sort;
  const rank = (row) => (typeof row[key] === "string" ? row[key] : row[key] ?? -Infinity);
  return rows.sort((one, other) => (rank(one) < rank(other) ? -sign : rank(one) > rank(other) ? sign : 0));
}

function drawClasses() {
  const table = $("class-table"), rows = run().classes ? classRows() : [];
  const of = (name, key, group) => {
    const values = data.runs.filter((other) => other.group === group && other.set === run().set && other.classes).map((other) => other.classes[set().classes.indexOf(name)][key]).filter((value) => value !== null);
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  };
  const groups = data.runs.length > 1 && data.groups.length > 1 ? data.groups.map((name, index) => [name, index]) : [];
  const head = COLUMNS.map(([key, title]) => {
    const cell = element("th", { class: key === "name" || key === "main" ? "" : "n" }, title + (state.sort[0] === key ? (state.sort[1] > 0 ? " ▲" : " ▼") : ""));
    cell.addEventListener("click", () => { state.sort = [key, state.sort[0] === key ? -state.sort[1] : key === "name" ? 1 : -1]; drawClasses(); });
    return cell;
  });
  table.tHead.replaceChildren(element("tr", {}, ...head, ...groups.map(([name]) => element("th", { class: "n" }, "AP ", element("bdi", {}, name)))));
  table.tBodies[0].replaceChildren(...rows.map((row) => {
    const cells = COLUMNS.map(([key]) => key === "name" ? element("th", {}, element("bdi", {}, row.name)) : key === "main" ? element("td", {}, KIND_NAMES[row.main] ?? "–") : element("td", { class: "n" }, text(row[key], key === "num_ground_truth" ? 0 : key === "threshold" ? 4 : 3)));
    const made = element("tr", { tabindex: "0", class: row.name === state.name ? "chosen" : "" }, ...cells, ...groups.map(([, index]) => element("td", { class: "n" }, text(of(row.name, "AP", index)))));
    const choose = () => chooseClass(row.name === state.name ? null : row.name);
    made.addEventListener("click", choose);
    made.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(); });
    return made;
  }));
  drawShares(rows.filter((row) => row.oLRP !== null));
}

function drawShares(rows) {
  const worst = [...rows].sort((one, other) => other.oLRP - one.oLRP).slice(0, 25).reverse();
  const traces = worst.length ? data.kinds.map((kind, index) => ({ type: "bar", orientation: "h", name: KIND_NAMES[kind], marker: { color: color([0, 1, 4, 3, 7, 2][index]) }, y: worst.map((_, place) => place), x: worst.map((row) => row.shares[index]), customdata: worst.map((row) => plain(row.name)), hovertemplate: `%{customdata}: ${KIND_NAMES[kind]} %{x:.3f}<extra></extra>` })) : [];
  const title = rows.length > 25 ? "What oLRP is made of, the 25 worst classes" : "What oLRP is made of";
  draw("shares", traces, layout(title, "", "", { barmode: "stack", height: 110 + 26 * Math.max(worst.length, 4), legend: { orientation: "h", y: -0.05 - 0.6 / Math.max(worst.length, 4), yanchor: "top" }, yaxis: { tickvals: worst.map((_, place) => place), ticktext: worst.map((row) => brief(row.name, 18)), showgrid: false } }), "no class has ground truth");
}

// -- curves

function drawCurves() {
  const key = label() < 0 ? "mean" : String(label()), whose = label() < 0 ? "mean over the classes" : plain(state.name);
  const shown = state.all ? data.runs.map((other, index) => [other, index]).filter(([other]) => other.pr && (other.set === run().set || key === "mean")) : [[run(), state.run]];
  const recall = Array.from({ length: 101 }, (_, index) => index / 100);
  const unit = { range: [0, 1.02] };
  const precision = shown.flatMap(([other, index]) => {
    const curves = other.pr[key];
    if (!curves) return [];
    const named = (at) => `${state.all ? brief(other.name) : `IoU ${data.ious[at]}`}: ${text(curves[at].reduce((sum, value) => sum + value, 0) / 101)}`;
    return (state.all ? [0] : [0, 1, 2, 3, 4]).map((at) => ({ x: recall, y: curves[at], name: named(at), line: state.all ? line(index) : { color: color(at), width: 2 } }));
  });
  draw("pr", precision, layout(`Precision, ${whose}${state.all ? ", IoU 0.5" : ""}`, "recall", "precision", { xaxis: { range: [0, 1] }, yaxis: unit, showlegend: true }), "no ground truth");
  const parts = state.all ? [["lrp", "LRP"]] : [["lrp", "LRP"], ["localization", "Loc"], ["false_positive", "FP"], ["false_negative", "FN"]];
  const lrp = shown.flatMap(([other, index]) => {
    const curve = other.lrp[key];
    if (!curve) return [];
    const lines = parts.map(([part, name], at) => ({ x: curve.thresholds, y: curve[part], name: state.all ? brief(other.name) : name, line: state.all ? { ...line(index), shape: "vh" } : { color: color([7, 0, 1, 2][at]), width: at ? 1.6 : 2.6, shape: "vh", dash: at ? "dash" : "solid" } }));
    const best = { x: [curve.best[0]], y: [curve.best[1]], mode: "markers", marker: { size: 9, color: state.all ? line(index).color : color(7) }, name: `${text(curve.best[1])} at ${text(curve.best[0], 4)}`, showlegend: !state.all };
    return curve.best[0] === null ? lines : [...lines, best];
  });
  draw("lrp", lrp, layout(`LRP at IoU ${data.tau}, ${whose}`, "score threshold", "error", { yaxis: unit, showlegend: true }), "nothing found");
  const left = shown.reduce((sum, [other]) => Math.max(sum, other.left_out), 0);
  $("left-out").textContent = left ? `The curves of ${left} classes with the fewest boxes are left out.` : "";
}

function drawScores() {
  const { points, reliability: bins } = run(), keep = points.label.map((found, index) => index).filter((index) => label() < 0 || points.label[index] === label());
  const pick = (values) => keep.map((index) => values[index]);
  const dots = keep.length ? [{ x: pick(points.score), y: pick(points.iou), mode: "markers", type: "scatter", marker: { size: 5, opacity: 0.5, color: color(0) }, name: "true positive" }] : [];
  const rho = text(run().numbers.rho);
  draw("points", dots, layout(`IoU of the true positives, rho ${rho}`, "score", "IoU", { yaxis: { range: [data.tau - 0.02, 1.02] }, showlegend: false }), "no true positives");
  const means = bins.score.length ? [
    { x: [0, 1], y: [0, 1], mode: "lines", line: { color: shade("--soft"), dash: "dash", width: 1 }, name: "score = precision" },
    { x: bins.score, y: bins.precision, mode: "lines+markers", line: { color: color(0) }, name: "precision" },
    { x: bins.score, y: bins.quality, mode: "lines+markers", line: { color: color(1) }, name: "precision × IoU" },
    { x: bins.middle, y: bins.right.map((right, index) => right + bins.wrong[index]), type: "bar", yaxis: "y2", marker: { color: shade("--line") }, name: "detections" },
  ] : [];
  draw("reliability", means, layout("Precision of each bin of scores, all classes", "score", "precision", { xaxis: { range: [-0.02, 1.02] }, yaxis: { range: [0, 1.02], overlaying: "y2", tickmode: "linear", dtick: 0.2 }, yaxis2: { side: "right", type: "log", dtick: 1, showgrid: false, title: { text: "detections" }, automargin: true }, showlegend: true }), "nothing found");
}

// -- confusion

function drawConfusion() {
  const names = [...set().classes, "(none)"], count = names.length, matrix = names.map(() => new Array(count).fill(0));
  for (const [row, column, number] of run().confusion) matrix[row][column] = number;
  const shares = matrix.map((row) => { const sum = row.reduce((one, other) => one + other, 0) || 1; return row.map((number) => number / sum); });
  const places = names.map((_, index) => index), ticks = { tickvals: places, ticktext: names.map((name) => brief(name, 14)), showgrid: false, zeroline: false };
  const side = Math.min(Math.max(340, 120 + 26 * count), 900);
  $("confusion-chart").style.maxWidth = `${side + 120}px`;
  const trace = { type: "heatmap", z: shares, x: places, y: places, zmin: 0, zmax: 1, showscale: false, colorscale: [[0, shade("--panel")], [1, color(0)]], customdata: matrix.map((row, r) => row.map((number, c) => `${plain(names[r])} → ${plain(names[c])}: ${number}`)), hovertemplate: "%{customdata}<extra></extra>" };
  if (count <= 26) Object.assign(trace, { text: matrix.map((row) => row.map((number) => number || "")), texttemplate: "%{text}" });
  draw("confusion-chart", [trace], layout("", "predicted; last: missed", "true; last: nothing there", { height: side, xaxis: { ...ticks, tickangle: -60 }, yaxis: { ...ticks, autorange: "reversed" } }), "");
  const chart = $("confusion-chart");
  chart.removeAllListeners("plotly_click");
  chart.on("plotly_click", ({ points: [point] }) => { if (point.y < count - 1) chooseClass(names[point.y]); });
  const confused = run().confusion.filter(([row, column]) => row !== column && row < count - 1 && column < count - 1 && (label() < 0 || row === label() || column === label()));
  confused.sort((one, other) => other[2] - one[2]);
  $("confused").replaceChildren(...confused.slice(0, 6).map(([row, column, number]) => element("li", {}, element("bdi", {}, names[row]), " taken for ", element("bdi", {}, names[column]), ` (${number} times)`)));
}

// -- images

const SVG = "http://www.w3.org/2000/svg";
function svg(tag, attributes, content) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (content !== undefined) made.textContent = content;
  return made;
}

// The slider walks through the scores that occur: those of a ranking loss may crowd in a thousandth of their range.
function leastScore() {
  const scores = run().found.flat().map((row) => row[5]).sort((one, other) => one - other);
  return scores[Math.min(Math.floor(Number($("score").value) / 1000 * scores.length), scores.length - 1)] ?? 0;
}

function boxesOf(index) {
  const image = set().images[index], least = state.least;
  const wanted = (of) => label() < 0 || of === label();
  const cut = (of) => ($("cuts").checked ? run().classes[of].threshold ?? Infinity : least);
  const found = run().found[index].filter((row) => row[5] >= cut(row[4]));
  const taken = new Set(found.map((row) => row[7]));
  return {
    found: $("show-found").checked ? found.filter((row) => wanted(row[4])).map((row) => ({ box: row, label: row[4], score: row[5], kind: { 1: "right", 0: "wrong", "-1": "ignored" }[row[6]] })) : [],
    truth: $("show-truth").checked ? image.truth.map((row, place) => ({ box: row, label: row[4], kind: row[5] ? "ignored" : taken.has(place) ? "true" : "missed" })).filter((row) => wanted(row.label)) : [],
  };
}

function picture(index) {
  const image = set().images[index], [width, height] = image.size, boxes = boxesOf(index), size = Math.max(width, height) / 26;
  const made = svg("svg", { class: "image", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": image.name || `image ${image.id}` });
  if (image.source) made.append(svg("image", { href: image.source, width, height }));
  for (const row of [...boxes.truth, ...boxes.found.reverse()]) {
    const [x, y, w, h] = row.box, name = [...set().classes[row.label]].slice(0, 24).join("");
    const box = svg("rect", { x, y, width: w, height: h, class: row.kind });
    box.append(svg("title", {}, row.score === undefined ? `true: ${set().classes[row.label]}` : `${set().classes[row.label]} ${row.score.toFixed(4)}`));
    made.append(box);
    if (row.score !== undefined) made.append(svg("text", { x: Math.max(x, 1), y: y > size * 1.2 ? y - size * 0.25 : Math.max(y, 0) + size, "font-size": size, "stroke-width": size / 6 }, `${name} ${row.score.toFixed(2)}`));
    else if (row.kind === "missed") made.append(svg("text", { x: Math.max(x, 1), y: Math.min(y + h + size, height - 1), "font-size": size, "stroke-width": size / 6 }, name));
  }
  return { made, boxes };
}

function drawImages() {
  const order = $("order").value;
  state.least = leastScore();
  $("score-value").textContent = $("cuts").checked ? "" : state.least.toPrecision(3);
  const chosen = set().images.map((_, index) => index).filter((index) => {
    const image = set().images[index];
    const fits = label() < 0 ? order === "all" || image.worst === (order === "worst") : image.truth.some((row) => row[4] === label()) || boxesOf(index).found.length > 0;
    return fits;
  });
  $("gallery").replaceChildren(...chosen.map((index) => {
    const image = set().images[index], { made, boxes } = picture(index);
    const count = (rows, kind) => rows.filter((row) => row.kind === kind).length;
    const caption = `${count(boxes.found, "right")} right, ${count(boxes.found, "wrong")} wrong, ${count(boxes.truth, "missed")} missed`;
    made.addEventListener("click", () => { $("large").firstElementChild.replaceChildren(picture(index).made); $("large").showModal(); });
    return element("figure", {}, made, element("figcaption", {}, element("bdi", {}, image.name || `image ${image.id}`), ` – LRP ${text(image.error)}; ${caption}${image.source ? "" : "; the file cannot be opened"}`));
  }));
  const note = `${chosen.length} of the ${set().images.length} images on this page, chosen of ${set().total.images}: the worst and the best by LRP${data.runs.length > 1 ? " (the mean over the runs)" : ""}, and the worst of single classes.`;
  $("gallery-note").textContent = note;
}

// -- all of it

function drawMeasured() {
  const measured = Boolean(set());
  for (const id of ["classes", "curves", "confusion", "images", "scores"]) if ($(id)) $(id).hidden = !measured;
  if (!measured) return;
  for (const place of document.querySelectorAll(".which")) {
    const whose = place.closest("#curves") && state.all ? "" : data.runs.length > 1 ? run().name : "";
    place.replaceChildren(element("bdi", {}, [whose, state.name ?? ""].filter(Boolean).join(" · ")));
  }
  drawClasses(); drawCurves(); drawConfusion(); drawImages(); drawScores();
}

function chooseClass(name) {
  state.name = name;
  $("class").value = name === null ? "" : String(label());
  drawMeasured();
}

function chooseRun(value) {
  state.all = value === "all";
  state.run = state.all ? Math.max(data.runs.findIndex((other) => other.set !== undefined), 0) : Number(value);
  fillClasses();
  drawTraining(); drawMeasured();
}

function fillClasses() {
  const classes = set() ? set().classes : [];
  if (!classes.includes(state.name)) state.name = null;
  if (!$("class")) return;
  $("class").replaceChildren(element("option", { value: "" }, "all"), ...classes.map((name, index) => element("option", { value: index }, name)));
  $("class").value = state.name === null ? "" : String(label());
}

function worstClasses() {
  if (data.runs.length > 1 || !run().classes) return;
  const rows = run().classes.map((row, index) => ({ ...row, name: set().classes[index] })).filter((row) => row.oLRP !== null && row.main);
  if (rows.length < 2) return;
  rows.sort((one, other) => other.oLRP - one.oLRP);
  const parts = rows.slice(0, 3).flatMap((row) => [element("bdi", {}, row.name), ` (oLRP ${text(row.oLRP)}; most of it: ${KIND_NAMES[row.main]}), `]);
  $("worst").replaceChildren(element("p", {}, "Worst classes: ", ...parts.slice(0, -1), parts.at(-1).slice(0, -2), "."));
}

function paint(theme) {
  document.documentElement.dataset.theme = theme;
  for (const dot of document.querySelectorAll(".dot")) dot.style.background = color(Number(dot.dataset.group));
}

async function start() {
  paint(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  worstClasses();
  $("theme").addEventListener("click", () => { paint(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); if (window.Plotly) { drawTraining(); drawMeasured(); } });
  const bytes = Uint8Array.from(atob($("plotly").textContent), (letter) => letter.charCodeAt(0));
  const source = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const script = element("script");
  script.textContent = source;
  document.head.append(script);
  if ($("run")) {
    $("run").append(...(data.runs.length > 1 ? [element("option", { value: "all" }, "all")] : []), ...data.runs.map((other, index) => element("option", { value: index }, other.name)));
    $("run").addEventListener("change", () => chooseRun($("run").value));
    $("class").addEventListener("change", () => chooseClass($("class").value === "" ? null : set().classes[Number($("class").value)]));
  }
  if ($("gallery")) {
    $("score").addEventListener("input", () => { $("cuts").checked = false; drawImages(); });
    for (const id of ["cuts", "order", "show-truth", "show-found"]) $(id).addEventListener("change", drawImages);
    $("large").lastElementChild.addEventListener("click", () => $("large").close());
  }
  chooseRun(data.runs.length > 1 ? "all" : "0");
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  $("failure").hidden = false;
  $("failure").textContent = `The charts could not be drawn: ${error.message}. A browser of 2023 or later is needed.`;
  console.error(error);
});
