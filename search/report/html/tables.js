// What is told in tables and pictures: picks, records by pages, contributions, importance, savings, detections.

/** A button for each pick, which chooses its record. */
function showPicks() {
  const first = (member) => (member.picks.includes("recommended") ? 0 : 1);
  for (const member of DATA.front.filter(({ picks }) => picks.length).sort((a, b) => first(a) - first(b))) {
    const own = { kind: "front", ...member, ...recordAt(member.row) };
    const drop = DATA.baseline.accuracy - own.accuracy;
    const button = el(
      "button",
      { type: "button", "aria-label": `${describeMark(own)}. Copies the recipe.` },
      el("b", {}, member.picks.join(", ")),
      el("span", {}, `${DATA.metric} ${number(own.accuracy)} (${signed(-drop)})`),
      el("span", {}, `latency ×${number(own.latency)}, ${number(own.ms, 2)} ms`),
      el("span", {}, `size ×${number(own.size)}, ${number(own.mb, 2)} MB`),
    );
    button.addEventListener("click", () => choose(own));
    byId("picks").append(el("li", {}, button));
  }
}

function showFrontTable() {
  const { header, rows } = DATA.front_table;
  const record = header.indexOf("record");
  const picked = new Set(DATA.front.filter(({ picks }) => picks.length).map(({ row }) => R.id[row]));
  byId("front-table").append(table({
    caption: "The front, fastest first, and the baseline; “sure” says whether a place on the front is beyond the noise",
    header, rows, numeric: header.map((_, column) => column).slice(0, record), picked: (row) => picked.has(rows[row][record]),
  }));
  if (!DATA.tests.length) return;
  byId("tests").append(el("h3", {}, "On the test split"), table({
    caption: "Measured once, at the end; the search did not see it",
    header: ["record", "validation", "test", "interval"],
    rows: DATA.tests.map((own) => [own.id, number(own.val), number(own.test), range(own.test_ci)]), numeric: [1, 2, 3],
  }));
}

/** The records that the filters leave, 20 a page, sorted by any column. */
const PAGE = 20;
const COLUMNS = [
  ["id", "record"], ["state", "state"], ["accuracy", "accuracy"], ["latency", "latency"], ["ms", "ms"], ["mb", "MB"],
  ["epochs", "epochs"], ["minutes", "minutes"], ["text", "recipe"], ["reason", "reason"],
];
const DIGITS = { accuracy: 3, latency: 3, ms: 2, mb: 2, epochs: 0, minutes: 1 };

function showRecordTable() {
  const holder = byId("record-table");
  const rows = R.id.map((_, row) => row).filter((row) => VIEW.rows[row]);
  const key = VIEW.sort;
  if (key) {
    const value = (row) => (known(R[key][row]) ? R[key][row] : null);
    rows.sort((a, b) => (value(a) === null) - (value(b) === null) || VIEW.turn * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
  }
  const pages = Math.max(1, Math.ceil(rows.length / PAGE));
  VIEW.page = Math.min(VIEW.page, pages - 1);
  const cells = rows.slice(VIEW.page * PAGE, (VIEW.page + 1) * PAGE).map((row) =>
    COLUMNS.map(([name]) => (name === "id" ? copyButton(row) : name in DIGITS ? number(R[name][row], DIGITS[name]) : R[name][row])));
  const header = COLUMNS.map(([name, title]) => sortButton(name, title));
  const made = table({ caption: `${rows.length} records, page ${VIEW.page + 1} of ${pages}`, header, rows: cells, numeric: [2, 3, 4, 5, 6, 7] });
  made.querySelectorAll("thead th").forEach((head, column) => {
    if (COLUMNS[column][0] === key) head.setAttribute("aria-sort", VIEW.turn > 0 ? "ascending" : "descending");
  });
  holder.replaceChildren(made, pager(pages));
}

function copyButton(row) {
  const button = el("button", { type: "button", "aria-label": `Copy the recipe of ${R.id[row]}` }, R.id[row]);
  button.addEventListener("click", () => choose({ row, ...recordAt(row) }));
  return button;
}

/** Redraws the table and gives the focus back to the button that asked for it. */
function again(id) {
  showRecordTable();
  const button = byId(id);
  if (button) button.focus();
}

function sortButton(name, title) {
  const arrow = VIEW.sort === name ? (VIEW.turn > 0 ? " ↑" : " ↓") : "";
  const button = el("button", { type: "button", id: `sort-${name}` }, title + arrow);
  button.addEventListener("click", () => {
    VIEW.turn = VIEW.sort === name ? -VIEW.turn : 1;
    Object.assign(VIEW, { sort: name, page: 0 });
    again(button.id);
  });
  return button;
}

function pager(pages) {
  const step = (id, title, by) => {
    const button = el("button", { type: "button", id }, title);
    button.disabled = VIEW.page + by < 0 || VIEW.page + by >= pages;
    button.addEventListener("click", () => {
      VIEW.page += by;
      again(id);
    });
    return button;
  };
  return el("div", { class: "pages" }, step("page-back", "Earlier", -1), `Page ${VIEW.page + 1} of ${pages}`, step("page-on", "Later", 1));
}

function doubted(rows) {
  const found = rows.flatMap(([name, doubts]) => [...new Set(doubts)].map((doubt) => `${name}: ${doubt}`));
  return found.length ? [el("p", { class: "why" }, `To be doubted: ${found.join("; ")}.`)] : [];
}

function showParts() {
  const holder = byId("parts");
  if (!DATA.contributions) {
    holder.append(el("p", { class: "why" }, "Nothing of the kind was measured; python -m search contributions DIR does."));
    return;
  }
  holder.append(el("p", {}, "Each picked recipe again with one part switched off. “Brings” sets the pick against that row: accuracy as a difference, latency and size as factors (×0.5: the part halves it). Each row is one training, so small differences in accuracy may be luck."));
  for (const pick of DATA.contributions) {
    const first = ["nothing", number(pick.values.accuracy), `×${number(pick.values.latency_ratio)}`, `×${number(pick.values.size_ratio)}`, "", "", "", pick.recipe];
    const missing = pick.parts.filter((part) => part.state === "missing").map((part) => part.name);
    const rows = pick.parts.filter((part) => part.state !== "missing").map((part) => {
      if (!part.values) return [part.name, ...Array(6).fill("–"), part.reason];
      const { accuracy, latency, latency_ci, size } = part.brought;
      const factor = known(latency) ? `×${number(latency)} (${range(latency_ci)})` : "not timed together";
      return [part.name, number(part.values.accuracy), `×${number(part.values.latency_ratio)}`, `×${number(part.values.size_ratio)}`, signed(accuracy), factor, `×${number(size)}`, part.recipe];
    });
    holder.append(table({
      caption: `${pick.picks.join(", ")}: ${pick.record_id}`, rows: [first, ...rows], numeric: [1, 2, 3, 4, 5, 6],
      header: ["switched off", DATA.metric, "latency", "size", "brings accuracy", "brings latency", "brings size", "recipe"],
    }));
    const parts = pick.parts.map((part) => [part.name, [...(part.values?.doubts ?? []), ...(part.brought?.doubts ?? [])]]);
    holder.append(...doubted([["nothing", pick.values.doubts], ...parts]));
    if (missing.length) holder.append(el("p", { class: "why" }, `Not trained: ${missing.join(", ")}. python -m search contributions DIR --pick ${pick.picks[0]} does.`));
  }
  const cells = DATA.rivals.map((own) => (known(own.accuracy)
    ? [own.name, number(own.accuracy), `×${number(own.latency)}`, `×${number(own.size)}`, own.beaten_by.join(", ") || "–"]
    : [own.name, "–", "–", "–", own.reason]));
  holder.append(el("h3", {}, "Simple rivals"), table({
    caption: "What takes no search. A pick beats a rival if it is no worse in any objective and better in one, both beyond the noise",
    header: ["rival", DATA.metric, "latency", "size", "beaten by"], rows: cells, numeric: [1, 2, 3],
  }));
  holder.append(...doubted(DATA.rivals.map((own) => [own.name, own.doubts ?? []])));
}

function showImportance() {
  const holder = byId("importance");
  const targets = Object.entries(DATA.importance);
  if (!targets.length) {
    holder.append(el("p", { class: "why" }, "Too few records, or too few different ones, to say."));
    return;
  }
  holder.append(el("p", {}, "A random forest learns a result from the recipes, and a parameter counts as much as the forest's R² on recipes it has not seen falls when that parameter is shuffled. It is about what this search tried, not about causes: the search did not try at random, parameters that go together share their weight, and of accuracy it only knows the records that were not screened or stopped. An R² of 1 is a perfect prediction; below 0.1 no order is shown, as it would be noise."));
  const panels = el("div", { class: "panels" });
  for (const [name, { recipes, r2, falls, telling }] of targets) {
    const title = `${name}: R² ${signed(r2, 2)} over ${recipes} recipes`;
    if (!telling) {
      panels.append(el("p", { class: "why" }, `${title}: the recipes do not tell it.`));
      continue;
    }
    const most = Object.entries(falls).sort((a, b) => b[1] - a[1]).slice(0, 8);
    const largest = Math.max(most[0][1], 1e-9);
    const rows = most.map(([parameter, fall]) => {
      const bar = el("span", { class: "bar", "aria-hidden": "true" });
      bar.style.width = `${Math.max(0, (4 * fall) / largest)}rem`;
      return [parameter, el("span", {}, bar, number(fall, 2))];
    });
    panels.append(table({ caption: title, header: ["parameter", "R² falls by"], rows }));
  }
  holder.append(panels);
}

function showSavings() {
  const { stopped, stopped_epochs, screened, screened_epochs, leaves, trained, seconds } = DATA.savings;
  const hours = (epochs) => (seconds ? `, about ${number((epochs * seconds) / 60, 0)} minutes at the mean of ${number(seconds, 1)} s an epoch` : "");
  const lines = [
    `${trained} epochs were trained.`,
    `${stopped} trainings were stopped at a rung, which left out ${stopped_epochs} epochs${hours(stopped_epochs)}.`,
    `${screened} trainings were screened before they began, by latency and size: ${screened_epochs} epochs${hours(screened_epochs)}.`,
  ];
  if (leaves) lines.push(`${leaves} more records were screened though their weights were trained for others: that saved a validation each.`);
  byId("saved").append(list(lines));
  const lost = R.id.map((_, row) => row).filter((row) => R.state[row] !== "complete");
  if (!lost.length) return;
  const counts = new Map();
  for (const row of lost) {
    const reason = `${R.state[row]}: ${R.reason[row].replace(/\b[0-9a-f]{12}\b/g, "…").replace(/-?\d+(\.\d+)?(e-?\d+)?/g, "…")}`;
    counts.set(reason, (counts.get(reason) || 0) + 1);
  }
  const rows = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 12).map(([reason, count]) => [reason, String(count)]);
  byId("saved").append(table({ caption: "Why, with names and numbers left out; the table of records has them", header: ["reason", "records"], rows, numeric: [1] }));
}

const list = (lines) => el("ul", {}, ...lines.map((text) => el("li", {}, text)));

function showPictures() {
  const holder = byId("pictures");
  const { why, classes, models, images } = DATA.pictures;
  if (why) {
    holder.append(el("p", { class: "why" }, `There are none: ${why}.`));
    return;
  }
  const select = el("select", { id: "picture-model" }, ...models.slice(1).map((name, place) => el("option", { value: place + 1 }, name)));
  const keys = classes.map((name, place) => el("span", { class: "key" }, el("i", { class: `class${place % 5}` }), name));
  const panels = el("div", {});
  const draw = () => panels.replaceChildren(...images.map((image) => pictureRow(image, Number(select.value))));
  select.addEventListener("change", draw);
  holder.append(
    el("p", {}, `${images.length} validation images, evenly spread over the split. Boxes with a score above 0.25, by the exported files.`),
    el("p", {}, el("label", {}, "Pick ", select)), el("p", {}, ...keys), panels,
  );
  draw();
}

function pictureRow(image, chosen) {
  const shown = [["labels", image.labels], [DATA.pictures.models[0], image.boxes[0]]];
  if (chosen) shown.push([DATA.pictures.models[chosen], image.boxes[chosen]]);
  return el("div", { class: "panels" }, ...shown.map(([name, boxes]) => picturePanel(image, name, boxes)));
}

function picturePanel(image, name, boxes) {
  const { classes } = DATA.pictures;
  const counts = classes.map((kind, place) => [kind, boxes.filter((box) => box[5] === place).length]).filter(([, count]) => count);
  const told = counts.map(([kind, count]) => `${count} ${kind}`).join(", ") || "nothing";
  const { width, height } = image;
  const rects = boxes.map(([left, top, wide, high, score, kind]) =>
    svg("rect", { class: `box class${kind % 5}`, x: left * width, y: top * height, width: wide * width, height: high * height },
      svg("title", {}, score === null ? classes[kind] : `${classes[kind]} ${score.toFixed(2)}`)));
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${image.name}, ${name}: ${told}` },
    svg("image", { href: image.src, width, height }), ...rects);
  return el("figure", {}, drawn, el("figcaption", {}, `${name}: ${told}`));
}
