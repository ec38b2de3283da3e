// What the report and the live page share: columns of records, copying, saying, colours.

const recordAt = (row) => Object.fromEntries(Object.keys(R).map((key) => [key, R[key][row]]));
const finishedRows = () => R.id.map((_, row) => row).filter((row) => known(R.accuracy[row]));

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

/** The old way, for where the clipboard's interface is not allowed. */
function copyBySelection(text) {
  const before = document.activeElement;
  const area = el("textarea", { class: "unseen", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (before) before.focus({ preventScroll: true });
  return done;
}

function say(text) {
  byId("live").textContent = "";
  requestAnimationFrame(() => (byId("live").textContent = text));
}

/** Colours as the system has them, then light, then dark. */
function wireTheme() {
  const names = ["system", "light", "dark"];
  byId("theme").addEventListener("click", () => {
    const next = names[(names.indexOf(document.documentElement.dataset.theme || "system") + 1) % 3];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    byId("theme").textContent = `Colours: ${next}`;
  });
}

/** Draws again in the next frame, once however often it was asked. */
function soon(draw) {
  let asked = 0;
  return () => {
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(draw);
  };
}
