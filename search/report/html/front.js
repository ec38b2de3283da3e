// The chart of the front: every finished record, and marks that can be read, focused and copied.

const AXES = {
  latency: { title: "latency, as a ratio to the FP32 baseline (less is better)", bounds: "latency_ci" },
  ms: { title: "latency, ms, median (less is better)" },
  mb: { title: "size, MB (less is better)" },
};

/** What an axis shows; milliseconds of several pictures at once say so. */
function axisTitle(across) {
  return AXES[across].title + (across === "ms" && DATA.batch > 1 ? `, of ${DATA.batch} pictures at once` : "");
}

const NEAR = 0.05; // accuracy below the least accurate member that is still near the front

/** The front's members, the baseline and the rivals, from left to right. */
function marksOf(across) {
  const members = DATA.front
    .filter(({ row }) => VIEW.rows[row])
    .map(({ row, picks, sure }) => ({ kind: "front", row, picks, sure, ...recordAt(row) }));
  const rivals = DATA.rivals.filter((rival) => known(rival.accuracy)).map((rival) => ({ kind: "rival", ...rival }));
  const all = [...members, { kind: "baseline", ...DATA.baseline }, ...rivals];
  return all.filter((mark) => known(mark[across])).sort((a, b) => a[across] - b[across]);
}

function describeMark(mark) {
  const title = mark.id ? [`Record ${mark.id}`, ...(mark.picks || [])].join(", ") : mark.name;
  const lines = [
    title[0].toUpperCase() + title.slice(1),
    mark.text,
    `${DATA.metric} ${number(mark.accuracy)}${mark.accuracy_ci ? ` (${range(mark.accuracy_ci)})` : ""}`,
    `latency ×${number(mark.latency)} (${range(mark.latency_ci)}), ${number(mark.ms, 2)} ms`,
    `size ×${number(mark.size)}, ${number(mark.mb, 2)} MB`,
  ];
  if (mark.beaten_by && mark.beaten_by.length) lines.push(`beaten by ${mark.beaten_by.join(", ")}`);
  return lines.join("\n");
}

/** A mark with its error bars; `focusable` is the one that Tab reaches, arrows lead to the others. */
function drawMark(mark, x, y, across, focusable) {
  const [left, top] = [x(mark[across]), y(mark.accuracy)];
  const bounds = AXES[across].bounds && mark[AXES[across].bounds];
  const bars = [];
  if (bounds) bars.push(`M${x(bounds[0])} ${top}H${x(bounds[1])}`);
  if (mark.accuracy_ci) bars.push(`M${left} ${y(mark.accuracy_ci[0])}V${y(mark.accuracy_ci[1])}`);
  return svg(
    "g",
    { class: `mark ${mark.kind}`, role: "button", tabindex: focusable ? 0 : -1, "aria-label": `${describeMark(mark)}. Copies the recipe.` },
    svg("path", { class: "bar", d: bars.join("") }),
    svg("circle", { class: "halo", cx: left, cy: top, r: 12 }),
    svg("path", { class: "shape", d: SHAPES[mark.kind], transform: `translate(${left} ${top})` }),
  );
}

/** The staircase below which nothing that is drawn lies: the front of accuracy and what goes across. */
function staircase(marks, x, y, across) {
  let best = -Infinity;
  let path = "";
  for (const mark of marks.filter((own) => own.kind === "front")) {
    if (mark.accuracy <= best) continue;
    path += path ? `H${x(mark[across])}V${y(mark.accuracy)}` : `M${x(mark[across])} ${y(mark.accuracy)}`;
    best = mark.accuracy;
  }
  return svg("path", { class: "step", d: path });
}

function legend(view) {
  const names = [["front", "front"], ["baseline", "baseline"]];
  if (DATA.rivals.some((rival) => known(rival.accuracy))) names.push(["rival", "simple rivals"]);
  const group = svg("g", { "aria-hidden": "true" });
  let left = view.right - 118 * (names.length + 1);
  for (const [kind, text] of names) {
    group.append(
      svg("g", { class: `mark ${kind}`, transform: `translate(${left} ${view.top - 14})` }, svg("path", { class: "shape", d: SHAPES[kind] })),
      svg("text", { x: left + 13, y: view.top - 10 }, text),
    );
    left += 118;
  }
  group.append(
    svg("circle", { class: "legend record", cx: left, cy: view.top - 14, r: 4 }),
    svg("text", { x: left + 13, y: view.top - 10 }, "finished records"),
  );
  return group;
}

function drawFront() {
  const figure = byId("front-chart");
  const across = VIEW.across;
  let marks = marksOf(across);
  const floor = VIEW.zoom ? Math.min(...marks.filter(({ kind }) => kind !== "rival").map((mark) => mark.accuracy)) - NEAR : -Infinity;
  const rows = finishedRows().filter((row) => VIEW.rows[row] && known(R[across][row]) && R.accuracy[row] >= floor);
  marks = marks.filter((mark) => mark.accuracy >= floor);
  const view = canvas(figure, 470, `${DATA.metric} of ${rows.length} finished records over ${axisTitle(across)}, and ${marks.length} marks`);
  const ends = (key) => marks.flatMap((mark) => (mark[key] ? mark[key] : []));
  const acrossEnds = AXES[across].bounds ? ends(AXES[across].bounds) : [];
  const x = scale([...rows.map((row) => R[across][row]), ...marks.map((mark) => mark[across]), ...acrossEnds], view.left, view.right);
  const y = scale([...rows.map((row) => R.accuracy[row]), ...marks.map((mark) => mark.accuracy), ...ends("accuracy_ci")], view.bottom, view.top);
  const surface = svg("rect", { class: "surface", x: view.left, y: view.top, width: view.right - view.left, height: view.bottom - view.top, fill: "transparent" });
  const points = svg("g", { class: "records", "aria-hidden": "true" });
  const near = [];
  for (const row of rows) {
    const [left, top] = [x(R[across][row]), y(R.accuracy[row])];
    points.append(svg("circle", { class: "record", cx: left.toFixed(2), cy: top.toFixed(2), r: 4 }));
    near.push({ left, top, mark: { row, ...recordAt(row) } });
  }
  const drawn = marks.map((mark, place) => drawMark(mark, x, y, across, place === 0));
  marks.forEach((mark, place) => near.push({ left: x(mark[across]), top: y(mark.accuracy), mark, element: drawn[place] }));
  const ring = svg("circle", { class: "chosen-ring", r: 10, visibility: "hidden" });
  if (known(VIEW.chosen) && rows.includes(VIEW.chosen)) {
    const [left, top] = [x(R[across][VIEW.chosen]), y(R.accuracy[VIEW.chosen])];
    for (const [key, value] of Object.entries({ cx: left, cy: top, visibility: "visible" })) ring.setAttribute(key, value);
  }
  view.drawn.append(axes(x, y, axisTitle(across), DATA.metric), surface, points, staircase(marks, x, y, across), ring, ...drawn, legend(view));
  wirePointer(view.drawn, near);
  wireKeys(drawn, marks);
  show(figure, view.drawn);
}

/** Reads and copies what is nearest to the pointer; marks win over the records beneath them. */
function wirePointer(drawn, near, describe = describeMark) {
  const nearest = (event) => {
    const box = drawn.getBoundingClientRect();
    const zoom = drawn.viewBox.baseVal.width / box.width;
    const [left, top] = [(event.clientX - box.left) * zoom, (event.clientY - box.top) * zoom];
    let best = null;
    let least = 18;
    for (const own of near) {
      const away = Math.hypot(own.left - left, own.top - top) - (own.element ? 4 : 0);
      if (away <= least) [best, least] = [own, away];
    }
    return best;
  };
  drawn.addEventListener("pointermove", (event) => {
    const own = nearest(event);
    if (own) tip(describe(own.mark), event.pageX, event.pageY);
    else hideTip();
  });
  drawn.addEventListener("pointerleave", hideTip);
  drawn.addEventListener("click", (event) => {
    const own = nearest(event);
    if (own) choose(own.mark);
  });
}

/** One stop for Tab; arrows, Home and End go from mark to mark, Enter and Space copy, Escape hides the note. */
function wireKeys(elements, marks) {
  elements.forEach((element, place) => {
    element.addEventListener("focus", () => {
      const box = element.querySelector(".shape").getBoundingClientRect();
      tip(describeMark(marks[place]), box.right + window.scrollX, box.bottom + window.scrollY);
    });
    element.addEventListener("blur", hideTip);
    element.addEventListener("keydown", (event) => {
      const last = elements.length - 1;
      const goals = { ArrowRight: place + 1, ArrowUp: place + 1, ArrowLeft: place - 1, ArrowDown: place - 1, Home: 0, End: last };
      if (event.key in goals) {
        const goal = Math.min(Math.max(goals[event.key], 0), last);
        element.setAttribute("tabindex", -1);
        elements[goal].setAttribute("tabindex", 0);
        elements[goal].focus();
      } else if (event.key === "Enter" || event.key === " ") choose(marks[place], "keyboard");
      else if (event.key === "Escape") hideTip();
      else return;
      event.preventDefault();
    });
  });
}

function tip(text, left, top) {
  const box = byId("tip");
  box.textContent = text;
  box.hidden = false;
  const room = document.documentElement.clientWidth + window.scrollX - box.offsetWidth - 8;
  box.style.left = `${Math.max(8, Math.min(left + 14, room))}px`;
  box.style.top = `${top + 14}px`;
}

function hideTip() {
  byId("tip").hidden = true;
}
