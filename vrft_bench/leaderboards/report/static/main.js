// Puts the page together: the data, the theme, the keys.

const KEYS = [
  ["j  →", "next answer"],
  ["k  ←", "previous answer"],
  ["↓  ↑", "a row down or up in the gallery"],
  ["Enter", "open the answer"],
  ["Esc", "close"],
  ["/", "search"],
  ["e", "show or hide what was thought"],
  ["g", "show or hide the truth"],
  ["b", "show or hide the boxes"],
  ["t", "light or dark"],
  ["?", "these keys"],
];

function remember(name, value) {
  try {
    localStorage.setItem(`vrft-bench.${name}`, value);
  } catch {
    // Storage may be closed to pages from disk; then nothing is remembered.
  }
}

function remembered(name) {
  try {
    return localStorage.getItem(`vrft-bench.${name}`);
  } catch {
    return null;
  }
}

function setTheme(theme) {
  if (theme === "light" || theme === "dark") document.documentElement.setAttribute("data-theme", theme);
}

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.getAttribute("data-theme")
    ? root.getAttribute("data-theme") === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
  remember("theme", dark ? "light" : "dark");
}

function fromAddress(gallery, detail) {
  const found = /^#answer=([^&]*)(?:&n=(\d+))?$/.exec(location.hash);
  if (!found) return;
  let id = "";
  try {
    id = decodeURIComponent(found[1]);
  } catch {
    return;
  }
  const index = gallery.find(id, Number(found[2] || 0));
  if (index >= 0) detail.show(index);
}

function main() {
  setTheme(remembered("theme"));
  const data = JSON.parse(byId("data").textContent);
  watchTips();
  drawCharts(data);
  const help = byId("help");
  let gallery = null;
  let detail = null;
  const filters = makeFilters(data, () => gallery.update());
  gallery = makeGallery(data, filters, (index) => detail.show(index));
  detail = makeDetail(data, filters, gallery);
  gallery.update();
  help.append(
    h("h2", { text: "Keys" }),
    h(
      "dl",
      {},
      ...KEYS.flatMap(([keys, meaning]) => [
        h("dt", {}, ...keys.split("  ").map((key) => h("kbd", { text: key }))),
        h("dd", { text: meaning }),
      ]),
    ),
    h("button", { type: "button", class: "quiet", text: "Close", onclick: () => help.close() }),
  );
  help.addEventListener("click", (event) => {
    if (event.target === help) help.close();
  });
  const showHelp = () => {
    help.showModal();
    help.focus();
  };
  byId("help-button").addEventListener("click", showHelp);
  byId("theme-button").addEventListener("click", toggleTheme);

  const step = (by) => {
    const index = Math.max(0, Math.min(gallery.count() - 1, gallery.current() < 0 ? 0 : gallery.current() + by));
    if (detail.isOpen()) detail.show(index);
    else gallery.select(index);
  };
  const actions = {
    j: () => step(1),
    ArrowRight: () => step(1),
    k: () => step(-1),
    ArrowLeft: () => step(-1),
    ArrowDown: () => step(gallery.columns()),
    ArrowUp: () => step(-gallery.columns()),
    Enter: () => {
      if (!detail.isOpen() && gallery.current() >= 0) detail.show(gallery.current());
    },
    "/": () => {
      if (!detail.isOpen()) filters.controls.search.focus();
    },
    "?": () => (help.open ? help.close() : showHelp()),
    e: detail.think,
    t: toggleTheme,
    g: () => document.body.classList.toggle("hide-truth"),
    b: () => document.body.classList.toggle("hide-boxes"),
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, select, textarea");
    if (typing && event.key === "Escape") event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const vertical = event.key === "ArrowDown" || event.key === "ArrowUp";
    if (vertical && (detail.isOpen() || gallery.current() < 0)) return; // then they scroll
    if (help.open && event.key !== "?") return;
    if (event.key === "Enter" && event.target.closest("button, summary, a")) return;
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  window.addEventListener("hashchange", () => fromAddress(gallery, detail));
  fromAddress(gallery, detail);
  document.documentElement.setAttribute("data-ready", "");
}

main();
