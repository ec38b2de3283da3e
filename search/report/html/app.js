// Starts the page: reads the data, keeps what is filtered and chosen, and draws again when that changes.

const DATA = JSON.parse(byId("data").textContent);
const R = DATA.records.id ? DATA.records : { id: [], trunk: [], state: [], curve: [] }; // a list for each property
const VIEW = { rows: R.id.map(() => true), across: "latency", zoom: false, chosen: null, sort: null, turn: 1, page: 0 };

/** YAML of a recipe; strings are quoted as in JSON, which YAML reads too. */
function yaml(places) {
  const fields = Object.entries(DATA.recipes).map(([field, values], place) => [field, values[places[place]]]);
  return fields
    .map(([field, value]) => (value !== null && typeof value === "object"
      ? `${field}:\n${Object.entries(value).map(([key, own]) => `  ${key}: ${JSON.stringify(own)}\n`).join("")}`
      : `${field}: ${JSON.stringify(value)}\n`))
    .join("");
}

/** Copies a recipe, shows it below the chart, and marks its record in all charts. */
async function choose(mark, by = "pointer") {
  if (!mark.recipe) return;
  const text = yaml(mark.recipe);
  const name = mark.id ? `record ${mark.id}` : mark.name;
  VIEW.chosen = known(mark.row) ? mark.row : null;
  byId("selected").hidden = false;
  byId("selected-title").textContent = `Recipe of ${name}`;
  byId("selected-text").textContent = mark.text;
  byId("selected-recipe").textContent = text;
  const copied = await copy(text);
  say(copied ? `Recipe of ${name} copied` : `The browser refused to copy; the recipe of ${name} is shown below the chart`);
  const place = document.activeElement && [...document.querySelectorAll("#front-chart .mark[role]")].indexOf(document.activeElement);
  drawCharts();
  const marks = document.querySelectorAll("#front-chart .mark[role]");
  if (by === "keyboard" && place >= 0 && marks[place]) {
    marks[0].setAttribute("tabindex", -1);
    marks[place].setAttribute("tabindex", 0);
    marks[place].focus();
  }
}

/** Which records the filters leave: a limit leaves out what it is not known to hold for. */
function filter() {
  const form = byId("filters").elements;
  const limit = (name) => (form[name].value === "" ? Infinity : Number(form[name].value));
  const [ms, mb, drop] = [limit("ms"), limit("mb"), limit("drop") / 100];
  const word = form.text.value.trim().toLowerCase();
  const within = (value, most) => most === Infinity || (known(value) && value <= most + 1e-9);
  VIEW.rows = R.id.map((_, row) =>
    within(R.ms[row], ms) && within(R.mb[row], mb) && R.text[row].toLowerCase().includes(word) &&
    within(known(R.accuracy[row]) ? DATA.baseline.accuracy - R.accuracy[row] : null, drop));
  Object.assign(VIEW, { across: form.across.value, zoom: form.zoom.checked, page: 0 });
  const best = DATA.front.filter(({ row }) => VIEW.rows[row]).sort((a, b) => R.accuracy[b.row] - R.accuracy[a.row])[0];
  const shown = `${VIEW.rows.filter(Boolean).length} of ${R.id.length} records are shown`;
  byId("shown").textContent = best
    ? `${shown}; the most accurate of the front among them is ${R.id[best.row]}: ${number(R.accuracy[best.row])}, ${number(R.ms[best.row], 2)} ms, ${number(R.mb[best.row], 2)} MB.`
    : `${shown}; none of them is on the front.`;
  drawCharts();
  showRecordTable();
}

function drawCharts() {
  if (R.id.length) [drawFront, drawTargets, drawRecords, drawParallel].forEach((draw) => draw());
}

function showNotes() {
  const { sure, quantization, search, measured } = DATA.notes;
  if (sure.length) byId("sure").append(el("h3", {}, "How sure the front is"), el("p", {}, sure[0]), list(sure.slice(1)));
  if (quantization.length) byId("measured").append(el("h3", {}, "Quantization"), list(quantization));
  if (search.length) byId("saved").append(el("h3", {}, "The search"), list(search));
  byId("measured").prepend(list(measured));
}

function showTables() {
  dataTable(byId("front-chart"), () => ({
    caption: "Front, baseline and simple rivals, by what is across",
    header: ["mark", DATA.metric, "interval", "latency", "interval", "ms", "MB", "recipe"], numeric: [1, 2, 3, 4, 5, 6],
    rows: marksOf(VIEW.across).map((mark) => [mark.id || mark.name, number(mark.accuracy), range(mark.accuracy_ci),
      `×${number(mark.latency)}`, range(mark.latency_ci), number(mark.ms, 2), number(mark.mb, 2), mark.text]),
  }));
  dataTable(byId("growth-chart"), () => ({
    caption: "At the end of each trial", header: ["minutes", "trials", "epochs", "hypervolume"], numeric: [0, 1, 2, 3],
    rows: DATA.hypervolume.moments.map(([minutes, trials, epochs, volume]) => [number(minutes, 1), `${trials}`, `${epochs}`, number(volume, 4)]),
  }));
  dataTable(byId("parallel-chart"), () => {
    const front = DATA.front.map(({ row }) => row);
    const columns = parallelAxes();
    const told = (column, row) => (known(column.values[row]) ? column.categories[column.values[row]] || String(Number(column.values[row].toPrecision(4))) : "–");
    return { caption: "The front's lines; the table of records has all", header: ["record", ...columns.map((column) => column.name)],
      rows: front.map((row) => [R.id[row], ...columns.map((column) => told(column, row))]) };
  });
  dataTable(byId("curve-chart"), () => ({
    caption: "Each training, at most 500", header: ["record", "ended", "epochs: accuracy"],
    rows: curves().slice(0, 500).map((row) => [R.id[row], R.state[row], R.curve[row].map(([epochs, value]) => `${epochs}: ${number(value)}`).join(", ")]),
  }));
}

function start() {
  const states = Object.entries(R.state.reduce((all, state) => ({ ...all, [state]: (all[state] || 0) + 1 }), {}));
  byId("lead").textContent = `${R.id.length} records (${states.map(([state, count]) => `${count} ${state}`).join(", ")}), ` +
    `${DATA.front.length} on the front, hypervolume ${number(DATA.hypervolume.final, 4)}. Ratios are to the FP32 baseline, ${number(DATA.baseline.ms, 1)} ms${DATA.batch > 1 ? ` for ${DATA.batch} pictures at once` : ""} and ${number(DATA.baseline.mb, 1)} MB.`;
  byId("targets").hidden = !DATA.targets;
  document.querySelectorAll("main section:not([hidden]) h2").forEach((title) => byId("contents").append(el("li", {}, el("a", { href: `#${title.id}` }, title.textContent))));
  showPicks();
  showFrontTable();
  showTables();
  [showTargets, showPictures, showParts, showImportance, showSavings, showNotes].forEach((draw) => draw());
  if (DATA.hypervolume.moments.length) drawGrowth();
  if (curves().length) drawCurves();
  filter();
  wireTheme();
  const refilter = soon(filter);
  byId("filters").addEventListener("input", refilter);
  byId("filters").addEventListener("reset", refilter);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  let width = document.documentElement.clientWidth;
  const resized = soon(() => {
    drawCharts();
    if (DATA.hypervolume.moments.length) drawGrowth();
    if (curves().length) drawCurves();
  });
  window.addEventListener("resize", () => {
    if (width !== document.documentElement.clientWidth) resized();
    width = document.documentElement.clientWidth;
  });
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

start();
