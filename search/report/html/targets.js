// The section of a study's other targets: all fronts in one chart, a table for each, and how far targets agree.

/** The main target's front and those of the others, each from left to right, without what the filters leave out. */
function frontsOf(across) {
  const main = DATA.front.map(({ row, picks, sure }) => ({ picks, sure, ...recordAt(row) }));
  return [{ name: DATA.targets.main, batch: DATA.batch, members: main }, ...DATA.targets.fronts].map(({ name, batch, members }) => {
    const own = members.map((member) => ({ kind: "front", row: R.id.indexOf(member.id), ...member }));
    const shown = own.filter(({ row }) => VIEW.rows[row]).map((member) => {
      const { recipe, text } = recordAt(member.row);
      return { ...member, recipe, text, target: name };
    });
    return { name, batch, members: shown.sort((a, b) => a[across] - b[across]) };
  });
}

/** A target's name; milliseconds of several pictures at once say so. */
const legendOf = ({ name, batch }, across) => (across === "ms" && batch > 1 ? `${name}, ${batch} pictures at once` : name);

const describeThere = (member) => `${describeMark(member)}\non ${member.target}`;

function drawTargets() {
  if (!DATA.targets) return;
  const across = VIEW.across;
  const fronts = frontsOf(across);
  const members = fronts.flatMap((front) => front.members);
  const view = canvas(byId("targets-chart"), 380, `${DATA.metric} of the fronts on ${fronts.map(({ name }) => name).join(", ")} over ${AXES[across].title}`);
  const x = scale(members.map((member) => member[across]), view.left, view.right);
  const y = scale(members.map((member) => member.accuracy), view.bottom, view.top + 20 * fronts.length);
  view.drawn.append(axes(x, y, AXES[across].title, DATA.metric));
  const near = [];
  fronts.forEach((front, place) => {
    const { name, members: own } = front;
    const style = `place${place % 5}`;
    const group = svg("g", { class: `target ${style}`, "data-target": name, "aria-hidden": "true" }, staircase(own, x, y, across));
    for (const member of own) {
      const [left, top] = [x(member[across]), y(member.accuracy)];
      group.append(targetShape(place, left, top));
      near.push({ left, top, mark: member, element: group });
    }
    const [left, top] = [view.left + 14, view.top - 14 + 20 * place];
    group.append(targetShape(place, left, top, "key"), svg("text", { x: left + 13, y: top + 4 }, legendOf(front, across)));
    view.drawn.append(group);
  });
  wirePointer(view.drawn, near, describeThere);
  show(byId("targets-chart"), view.drawn);
}

/** A mark of the target at this place: targets differ in shape, not only in colour. */
function targetShape(place, left, top, kind = "member") {
  return svg("path", { class: kind, d: TARGET_SHAPES[place % TARGET_SHAPES.length], transform: `translate(${left} ${top})` });
}
const TARGET_SHAPES = [SHAPES.front, "M-5.5-5.5H5.5V5.5H-5.5Z", SHAPES.rival, "M0-6A6 6 0 1 1 0 6A6 6 0 1 1 0-6Z", "M0 6.5L6.5-5.5H-6.5Z"];

function showTargets() {
  if (!DATA.targets) return;
  byId("main-target").textContent = DATA.targets.main;
  for (const front of DATA.targets.fronts) showOtherFront(front);
  const tau = (value) => number(value, 2);
  byId("agreement").append(
    el("h3", {}, "How far targets agree"),
    table({
      caption: "Kendall's tau: 1 if every two recipes are in the same order on both, 0 if half of them are, −1 if none is",
      header: ["targets", "records on both", "tau of latency ratios", "tau of accuracies"], numeric: [1, 2, 3],
      rows: DATA.targets.agreement.map((row) => [row.targets.join(" and "), String(row.records), tau(row.latency_tau), tau(row.accuracy_tau)]),
    }),
  );
}

function showOtherFront({ name, members, hypervolume, again, troubles, table: front }) {
  const holder = byId("other-fronts");
  holder.append(el("h3", {}, name));
  if (!members.length) {
    holder.append(el("p", { class: "why" }, "No record is complete there and within the constraints."));
    return;
  }
  const told = again ? `${again} records were measured again after the search` : "not measured again: these are figures of the search, the best of which flatter";
  const record = front.header.indexOf("record");
  const picked = new Set(members.filter(({ picks }) => picks.length).map(({ id }) => id));
  const cells = front.rows.map((row) => row.map((cell, column) =>
    (column === record && R.id.includes(cell) ? copyButton(R.id.indexOf(cell)) : cell)));
  holder.append(table({
    caption: `The front on ${name} and the baseline there; hypervolume ${number(hypervolume, 4)}; ${told}`, header: front.header, rows: cells,
    numeric: front.header.map((_, column) => column).slice(0, record), picked: (row) => picked.has(front.rows[row][record]),
  }));
  if (troubles.length) holder.append(list(troubles));
}
