"use strict";
// Small helpers to draw: elements, scales, axes, and tables beside a chart. Text is only ever set as text.

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const known = (value) => value !== null && value !== undefined;
const number = (value, digits = 3) => (known(value) ? value.toFixed(digits) : "–");
const signed = (value, digits = 3) => (known(value) ? (Number(value.toFixed(digits)) < 0 ? "−" : "+") + Math.abs(value).toFixed(digits) : "–");
const range = (bounds, digits = 3) => (bounds ? `${bounds[0].toFixed(digits)}–${bounds[1].toFixed(digits)}` : "–");

/** An HTML element with attributes and children; children that are no elements become text. */
function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.filter(known));
  return element;
}

function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.filter(known));
  return element;
}

/** Round numbers that divide [low, high] into about `count` parts. */
function ticks(low, high, count = 6) {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place++) found.push(place * step);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

/** A linear scale from the values to pixels, with room at both ends. */
function scale(values, from, to, room = 0.04) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (!known(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) [low, high] = [0, 1];
  const pad = high > low ? (high - low) * room : Math.abs(low) * 0.1 || 0.5;
  low -= low >= 0 && low < pad ? low : pad;
  high += pad;
  const map = (value) => from + ((value - low) / (high - low)) * (to - from);
  return Object.assign(map, { low, high, from, to });
}

/** Both axes of a chart as one group: grid lines, numbers, and titles. */
function axes(x, y, titleX, titleY) {
  const group = svg("g", { "aria-hidden": "true" });
  const across = ticks(x.low, x.high, Math.max(3, (x.to - x.from) / 90));
  const up = ticks(y.low, y.high, Math.max(3, (y.from - y.to) / 55));
  for (const value of across.found) {
    group.append(
      svg("path", { class: "grid", d: `M${x(value)} ${y.from}V${y.to}` }),
      svg("text", { class: "tick-x", x: x(value), y: y.from + 17, "text-anchor": "middle" }, value.toFixed(across.digits)),
    );
  }
  for (const value of up.found) {
    group.append(
      svg("path", { class: "grid", d: `M${x.from} ${y(value)}H${x.to}` }),
      svg("text", { class: "tick-y", x: x.from - 7, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(up.digits)),
    );
  }
  group.append(
    svg("path", { class: "axis", d: `M${x.from} ${y.to}V${y.from}H${x.to}` }),
    svg("text", { class: "quiet", x: (x.from + x.to) / 2, y: y.from + 37, "text-anchor": "middle" }, titleX),
    svg("text", { class: "quiet", x: x.from - 7, y: y.to - 9, "text-anchor": "start" }, titleY),
  );
  return group;
}

/** An empty picture as wide as its figure, so that text keeps its size on small screens. */
function canvas(figure, height, label) {
  const width = Math.max(300, figure.clientWidth || 1000);
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
  return { drawn, width, left: 62, right: width - 16, top: 30, bottom: height - 48 };
}

/** A path that draws a round dot at each point: one element however many points there are. */
const dense = (count) => (count > 2000 ? " dense" : "");
const dots = (points) => points.map(([x, y]) => `M${x.toFixed(1)} ${y.toFixed(1)}h0`).join("");

/** A path through the points; null begins a new line. */
function line(points) {
  let pen = "M";
  return points
    .map((point) => {
      const step = point && `${pen}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
      pen = point ? "L" : "M";
      return step || "";
    })
    .join("");
}

/** Symbols of one size that differ in shape, not only in colour. */
const SHAPES = {
  front: "M0-6.5L6.5 0L0 6.5L-6.5 0Z",
  baseline: "M0-9L2.2-3L8.6-2.8L3.5 1.2L5.3 7.3L0 3.7L-5.3 7.3L-3.5 1.2L-8.6-2.8L-2.2-3Z",
  rival: "M0-6.5L6.5 5.5H-6.5Z",
};

/** A table. A cell is text, or an element; columns of `numeric` are aligned to the right. */
function table({ caption, header, rows, numeric = [], picked = () => false }) {
  const style = (column) => (numeric.includes(column) ? { class: "number" } : {});
  const head = el("tr", {}, ...header.map((name, column) => el("th", { scope: "col", ...style(column) }, name)));
  const body = rows.map((cells, row) => {
    const own = cells.map((cell, column) =>
      column ? el("td", style(column), cell) : el("th", { scope: "row", ...style(column) }, cell));
    return el("tr", picked(row) ? { class: "picked" } : {}, ...own);
  });
  const made = el("table", {}, el("caption", {}, caption), el("thead", {}, head), el("tbody", {}, ...body));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, made);
}

/** The data of a chart as a table, made when it is opened. */
function dataTable(figure, make) {
  const found = el("details", {}, el("summary", {}, "The data as a table"));
  found.addEventListener("toggle", () => {
    if (found.open && found.children.length === 1) found.append(table(make()));
  });
  figure.append(found);
}

/** Puts a new picture in place of the old one, and leaves what stands below it. */
function show(figure, drawn) {
  const old = figure.querySelector(":scope > svg");
  if (old) old.replaceWith(drawn);
  else figure.prepend(drawn);
}
