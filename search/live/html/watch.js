// The live page: asks every second what is new, and draws again what that changes.

const EVERY = 1000; // ms
const SELDOM = 4000; // ms, where nobody looks or nobody answers
const LAST = 20; // records in the table
const COLUMNS = ["id", "state", "within", "text", "accuracy", "accuracy_ci", "latency", "latency_ci", "ms", "size", "mb"];

const empty = () => Object.fromEntries(COLUMNS.map((name) => [name, []]));
let R = empty(); // a list for each property of the records
const DATA = { metric: "accuracy", batch: 1, baseline: null, front: [], rivals: [], hypervolume: { moments: [] } };
const VIEW = { rows: [], across: "latency", zoom: false, chosen: null };
const KNOWN = { token: "", state: "" };

async function ask() {
  const found = await changes();
  if (found) take(found);
  else lost();
  document.documentElement.dataset.ready ||= String(Math.round(performance.now()));
  setTimeout(ask, found && !document.hidden ? EVERY : SELDOM);
}

/** What the server has that is not here yet; null if it gives no answer. */
async function changes() {
  const query = new URLSearchParams({ token: KNOWN.token, records: R.id.length, moments: DATA.hypervolume.moments.length });
  try {
    const answer = await fetch(`/changes?${query}`);
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

function lost() {
  tell("lost", "The server of this page gives no answer; it was ended, or the machine sleeps.", true);
}

function take(found) {
  if (found.token !== KNOWN.token) {
    R = empty();
    Object.assign(VIEW, { rows: [], chosen: null });
    DATA.hypervolume.moments = [];
    KNOWN.token = found.token;
  }
  const added = (found.records.id || []).length;
  for (const name of COLUMNS) R[name] = R[name].concat(found.records[name] || []);
  VIEW.rows = R.id.map(() => true);
  const grown = found.moments.length > 1 || added > 0;
  DATA.hypervolume.moments = DATA.hypervolume.moments.slice(0, found.kept_moments).concat(found.moments);
  const first = DATA.baseline === null;
  if (found.study) Object.assign(DATA, { metric: found.study.metric, batch: found.study.batch, baseline: found.study.baseline });
  DATA.front = found.front.map((row) => ({ row, picks: [], sure: "" }));
  showState(found);
  showFacts(found);
  showWorkers(found);
  if (added || (first && DATA.baseline)) showRecords();
  if (grown && DATA.hypervolume.moments.length) drawGrowth();
}

function showState(found) {
  const { live, study } = found;
  byId("title").textContent = study ? study.title : "No study yet";
  document.title = study ? `${study.title}: ${found.alive ? "running" : "not running"}` : "yolo-front";
  byId("report").hidden = !found.report;
  byId("log").textContent = live ? live.log.join("\n") : "";
  const members = `${DATA.front.length} on the front`;
  if (!study) tell("waiting", "Waiting for a study to begin in this folder.");
  else if (found.alive) tell("running", `Running: ${live.stage}.`);
  else if (!live) tell("copy", `Not running. ${members}.`);
  else if (live.state === "ended") tell("ended", `The study has ended: ${members}.`);
  else if (live.state === "failed") tell("failed", `The study failed: ${live.reason}`, true);
  else if (live.state === "stopped") tell("stopped", `The study was stopped: ${members}. Go on with python -m search resume ${study.folder}`);
  else tell("silent", `Nothing was heard of the study for ${span(found.now - live.heartbeat)}. Go on with python -m search resume ${study.folder}`, true);
}

/** The line below the title, and, when the state is another one, the same for those who listen. */
function tell(state, text, bad = false) {
  byId("lead").textContent = text;
  byId("lead").classList.toggle("bad", bad);
  if (KNOWN.state !== state) say(text);
  KNOWN.state = state;
}

function showFacts(found) {
  const { live } = found;
  const facts = [["records", String(R.id.length)]];
  for (const state of ["complete", "screened", "stopped", "failed"]) facts.push([state, String(found.states[state] || 0)]);
  facts.push(["on the front", String(DATA.front.length)], ["hypervolume", number(found.hypervolume, 4)]);
  if (live) {
    const limit = live.trials_limit ? ` of ${live.trials_limit}` : "";
    facts.unshift(["trials", `${live.trials}${limit}`]);
    const end = found.alive ? found.now : live.heartbeat;
    facts.push([found.alive ? "running for" : "ran for", span(end - live.started)]);
    if (found.alive && known(live.seconds_left)) facts.push(["time left, about", span(live.seconds_left)]);
  }
  const list = byId("facts");
  while (list.children.length > facts.length) list.lastChild.remove();
  facts.forEach(([name, value], place) => {
    if (!list.children[place]) list.append(el("div", {}, el("dt"), el("dd")));
    const [term, fact] = list.children[place].children;
    setText(term, name);
    setText(fact, value);
  });
}

function showWorkers(found) {
  const running = found.alive ? found.live.running : [];
  byId("workers").hidden = running.length === 0;
  fill("workers", running.map((own) => [
    own.text, own.total ? `${own.step}, epoch ${own.done} of ${own.total}` : own.step, span(found.now - own.since), own.node,
  ]));
}

function showRecords() {
  if (DATA.baseline) drawFrontInPlace();
  const rows = DATA.front.map(({ row }) => row);
  byId("members").hidden = rows.length === 0;
  const values = (row) => [number(R.accuracy[row]), `×${number(R.latency[row])}`];
  fill("members", rows.map((row) => [R.id[row], ...values(row), number(R.ms[row], 2), number(R.mb[row], 2), R.text[row]]));
  const last = R.id.map((_, row) => row).slice(-LAST).reverse();
  fill("last", last.map((row) => [R.id[row], R.state[row], ...values(row), number(R.mb[row], 2), R.text[row]]));
}

/** Draws the chart, with the focus on the mark that had it. */
function drawFrontInPlace() {
  const marks = () => [...document.querySelectorAll("#front-chart .mark[role]")];
  const focused = marks().includes(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  drawFront();
  const again = focused && marks().find((mark) => mark.getAttribute("aria-label") === focused);
  if (!again) return;
  marks()[0].setAttribute("tabindex", -1);
  again.setAttribute("tabindex", 0);
  again.focus({ preventScroll: true });
}

/** Puts rows of text into a table; what has not changed is left alone, so that it can be read and selected. */
function fill(id, rows) {
  const body = byId(id).tBodies[0];
  const numeric = [...byId(id).tHead.rows[0].cells].map((cell) => cell.className);
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, place) => {
    const row = body.rows[place] || body.insertRow();
    cells.forEach((text, column) => {
      if (!row.cells[column]) row.append(column ? el("td", { class: numeric[column] }) : el("th", { scope: "row" }));
      setText(row.cells[column], text);
    });
  });
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Copies the recipe of a mark and shows it below the chart. */
async function choose(mark, by = "pointer") {
  if (!mark.id) return;
  const answer = await fetch(`/recipe?id=${encodeURIComponent(mark.id)}`);
  const text = await answer.text();
  VIEW.chosen = mark.row;
  byId("selected").hidden = false;
  byId("selected-title").textContent = `Recipe of record ${mark.id}`;
  byId("selected-text").textContent = mark.text;
  byId("selected-recipe").textContent = text;
  say((await copy(text)) ? `Recipe of record ${mark.id} copied` : `The browser refused to copy; the recipe of record ${mark.id} is shown below the chart`);
  drawFrontInPlace();
}

/** Seconds as hours, minutes and seconds. */
function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const [hours, minutes, rest] = parts.map((part) => String(part));
  return parts[0] ? `${hours}:${minutes.padStart(2, "0")}:${rest.padStart(2, "0")}` : `${minutes}:${rest.padStart(2, "0")}`;
}

function start() {
  wireTheme();
  const form = byId("filters");
  form.addEventListener("input", () => {
    Object.assign(VIEW, { across: form.elements.across.value, zoom: form.elements.zoom.checked });
    if (DATA.baseline) drawFrontInPlace();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("resize", soon(() => {
    if (DATA.baseline) drawFrontInPlace();
    if (DATA.hypervolume.moments.length) drawGrowth();
  }));
  ask();
}

start();
