// Charts of the whole study: growth, every record over time, parallel coordinates, learning curves.

function drawGrowth() {
  const figure = byId("growth-chart");
  const moments = DATA.hypervolume.moments;
  const view = canvas(figure, 260, `Hypervolume after each of ${moments.length} trials`);
  const x = scale([0, ...moments.map((moment) => moment[0])], view.left, view.right, 0.02);
  const y = scale([0, ...moments.map((moment) => moment[3])], view.bottom, view.top);
  let path = `M${x(0)} ${y(0)}`;
  for (const [minutes, , , volume] of moments) path += `H${x(minutes).toFixed(1)}V${y(volume).toFixed(1)}`;
  view.drawn.append(axes(x, y, "minutes since the first trial", "hypervolume"), svg("path", { class: "one", d: path }));
  show(figure, view.drawn);
}

/** Three panels over the number of the record: what was measured of each, by the state in which it ended. */
function drawRecords() {
  const figure = byId("record-charts");
  const [height, gap] = [170, 58];
  const view = canvas(figure, 3 * (height + gap) + 20, `Accuracy, latency and size of ${R.id.length} records, oldest first`);
  const front = new Set(DATA.front.map(({ row }) => row));
  const x = scale([0, R.id.length], view.left, view.right, 0.01);
  const panels = [["accuracy", DATA.metric], ["latency", "latency, ratio"], ["size", "size, ratio"]];
  panels.forEach(([key, title], place) => {
    const top = 24 + place * (height + gap);
    const rows = R.id.map((_, row) => row).filter((row) => VIEW.rows[row] && known(R[key][row]));
    const y = scale(rows.map((row) => R[key][row]), top + height, top);
    view.drawn.append(axes(x, y, place === 2 ? "record, in the order in which they ended" : "", title));
    for (const kind of ["complete", "screened", "stopped", "front"]) {
      const own = rows.filter((row) => (front.has(row) ? "front" : R.state[row]) === kind);
      view.drawn.append(svg("path", { class: `dots ${kind}${dense(R.id.length)}`, "data-of": key, d: dots(own.map((row) => [x(row + 1), y(R[key][row])])) }));
    }
    if (known(VIEW.chosen) && known(R[key][VIEW.chosen]))
      view.drawn.append(svg("circle", { class: "chosen-ring", cx: x(VIEW.chosen + 1), cy: y(R[key][VIEW.chosen]), r: 8 }));
  });
  ["complete", "screened", "stopped", "front"].forEach((kind, place) => {
    const left = view.right - 100 * (4 - place);
    view.drawn.append(svg("path", { class: `dots ${kind}`, "aria-hidden": "true", d: `M${left} 10h0` }), svg("text", { x: left + 9, y: 14, "aria-hidden": "true" }, kind));
  });
  show(figure, view.drawn);
}

/** The axes of the parallel coordinates: parameters that vary, then the results. */
function parallelAxes() {
  const results = [["latency", "latency, ratio"], ["size", "size, ratio"], ["accuracy", DATA.metric]];
  return [...DATA.dimensions, ...results.map(([key, name]) => ({ name, categories: [], values: R[key] }))];
}

function drawParallel() {
  const figure = byId("parallel-chart");
  const rows = finishedRows().filter((row) => VIEW.rows[row]);
  const columns = parallelAxes();
  const view = canvas(figure, 400, `${rows.length} finished records over ${columns.map((column) => column.name).join(", ")}`);
  const [top, bottom, absent] = [58, 348, 376];
  const left = (place) => 54 + (place * (view.width - 118)) / (columns.length - 1);
  const frame = svg("g", { "aria-hidden": "true" });
  const scales = columns.map((column, place) => {
    const y = scale(rows.map((row) => column.values[row]), bottom, top, 0);
    frame.append(parallelAxis(column, y, left(place), rows, absent));
    return y;
  });
  const path = (row) => line(columns.map((column, place) => [left(place), known(column.values[row]) ? scales[place](column.values[row]) : absent]));
  const front = new Set(DATA.front.map(({ row }) => row));
  const rest = rows.filter((row) => !front.has(row));
  const share = Math.ceil(rest.length / 300) || 1; // lines in one element overlap without getting darker
  for (let start = 0; start < rest.length; start += share)
    view.drawn.append(svg("path", { class: "many", d: rest.slice(start, start + share).map(path).join("") }));
  for (const row of rows.filter((own) => front.has(own))) view.drawn.append(svg("path", { class: "one", d: path(row) }));
  if (rows.includes(VIEW.chosen)) view.drawn.append(svg("path", { class: "chosen-line", d: path(VIEW.chosen) }));
  view.drawn.append(frame);
  show(figure, view.drawn);
}

function parallelAxis(column, y, left, rows, absent) {
  const group = svg("g", {}, svg("path", { class: "axis", d: `M${left} ${y.from}V${y.to}` }));
  const words = column.name.split(".");
  words.slice(-3).forEach((word, row, all) =>
    group.append(svg("text", { class: row === all.length - 1 ? "" : "quiet", x: left, y: 44 - 14 * (all.length - 1 - row), "text-anchor": "middle" }, word)));
  const marks = column.categories.length
    ? column.categories.map((name, value) => [value, name])
    : ticks(y.low, y.high, 6).found.map((value) => [value, String(Number(value.toPrecision(4)))]);
  for (const [value, name] of marks.filter(([own]) => own >= y.low - 1e-9 && own <= y.high + 1e-9))
    group.append(svg("text", { class: "quiet", x: left + 5, y: y(value) + 4 }, name));
  if (rows.some((row) => !known(column.values[row]))) group.append(svg("text", { class: "quiet", x: left + 5, y: absent + 4 }, "–"));
  return group;
}

/** A curve for each training: its leaves share it. */
function curves() {
  const first = new Map();
  R.trunk.forEach((trunk, row) => {
    if (R.curve[row].length && !first.has(trunk)) first.set(trunk, row);
  });
  return [...first.values()];
}

function drawCurves() {
  const figure = byId("curve-chart");
  const rows = curves();
  const view = canvas(figure, 340, `Learning curves of ${rows.length} trainings`);
  const points = rows.flatMap((row) => R.curve[row]);
  const x = scale([0, ...points.map((point) => point[0])], view.left, view.right, 0.02);
  const y = scale(points.map((point) => point[1]), view.bottom, view.top);
  view.drawn.append(axes(x, y, "epochs", DATA.metric));
  const trunks = new Set(DATA.front.map(({ row }) => R.trunk[row]));
  const path = (row) => line(R.curve[row].map(([epochs, value]) => (known(value) ? [x(epochs), y(value)] : null)));
  const end = (row) => R.curve[row].filter((point) => known(point[1])).map(([epochs, value]) => [x(epochs), y(value)]);
  for (const [name, style, kind] of [["complete", "many", ""], ["stopped", "many stopped", "stopped"], ["front", "one", "front"]]) {
    const own = rows.filter((row) => (trunks.has(R.trunk[row]) ? "front" : R.state[row] === "stopped" ? "stopped" : "complete") === name);
    const share = Math.ceil(own.length / 200) || 1;
    for (let start = 0; start < own.length; start += share) {
      const some = own.slice(start, start + share);
      view.drawn.append(svg("path", { class: style, d: some.map(path).join("") }));
    }
    view.drawn.append(svg("path", { class: `dots ${kind}${dense(rows.length)}`, d: dots(own.flatMap(end)) }));
  }
  ["complete", "stopped", "front"].forEach((kind, place) => {
    const left = view.right - 100 * (3 - place);
    view.drawn.append(svg("path", { class: `dots ${kind}`, "aria-hidden": "true", d: `M${left} 12h0` }), svg("text", { x: left + 9, y: 16, "aria-hidden": "true" }, kind));
  });
  show(figure, view.drawn);
}
