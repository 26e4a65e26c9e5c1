// What is chosen above the gallery, and which cards that leaves.

const ORDERS = {
  data: "data order",
  low: "lowest score first",
  high: "highest score first",
  change: "largest change of score first",
  long: "longest answer first",
};

const total = (answer) => (answer ? answer.y[0] : null);

function makeFilters(data, changed) {
  const several = data.runs.length > 1;
  const letters = data.runs.map((run) => run.letter);
  const shows = letters.map((letter, index) => [String(index), `${letter}  ${data.runs[index].model}`]);
  letters.forEach((one, first) =>
    letters.forEach((other, second) => {
      if (first < second) shows.push([`${first},${second}`, `${one} beside ${other}`]);
    }),
  );
  const counted = (names, of) => {
    const counts = new Map();
    for (const card of data.cards)
      for (const answer of card.r)
        if (answer) for (const name of new Set(of(card, answer))) counts.set(name, (counts.get(name) || 0) + 1);
    return names
      .filter(([value]) => counts.has(value))
      .map(([value, text]) => [value, `${shown(text)} (${many(counts.get(value))})`]);
  };
  const kinds = counted(
    data.kinds.map((kind, index) => [index, kind]),
    (_, answer) => answer.e || [],
  );
  const statuses = counted(
    [...data.statuses.map((status, index) => [index, status.replace("_", " ")]), [-1, "failed"]],
    (_, answer) => [answer.s],
  );
  const categories = counted(
    data.categories.map((name, index) => [index, name]),
    (card) => [card.c],
  );
  const controls = {};
  const change = () => {
    for (const control of Object.values(controls)) control.classList.toggle("used", control.value !== control.initial);
    changed();
  };
  const select = (name, label, options, initial = "") => {
    if (options.length < 1) return null;
    const any = initial === "" ? [["", name === "flip" ? "flipped or not" : `any ${label}`]] : [];
    controls[name] = h(
      "select",
      { name, "aria-label": label, onchange: change },
      ...[...any, ...options].map(([value, text]) => h("option", { value, text })),
    );
    return controls[name];
  };
  const number = (name, label) => {
    controls[name] = h("input", {
      name,
      type: "number",
      step: "any",
      inputmode: "decimal",
      placeholder: label,
      "aria-label": label,
      oninput: change,
    });
    return controls[name];
  };
  controls.search = h("input", {
    name: "search",
    type: "search",
    placeholder: "Search answers, questions, ids  ( / )",
    "aria-label": "Search",
    autocomplete: "off",
    spellcheck: "false",
    oninput: change,
  });
  const orders = Object.entries(ORDERS).filter(([name]) => several || name !== "change");
  const flips = [
    ["any", "flipped either way"],
    ["up", "wrong → right"],
    ["down", "right → wrong"],
  ];
  const more = h(
    "div",
    { class: "fields" },
    several ? select("show", "runs shown", shows, "0,1") : null,
    select("category", "category", categories),
    select("kind", "mistake", kinds),
    select("status", "status", statuses),
    select("result", "result", [
      ["right", "right"],
      ["wrong", "wrong"],
    ]),
    several ? select("flip", "flip", flips) : null,
    h("div", { class: "pair" }, number("from", "score ≥"), number("to", "score ≤")),
    select("order", "order", orders, "data"),
    h("button", { type: "button", class: "quiet reset", text: "Reset", onclick: reset }),
  );
  const toggle = h("button", {
    type: "button",
    class: "quiet more",
    "aria-expanded": "false",
    text: "Filters",
    onclick: () => {
      toggle.setAttribute("aria-expanded", String(more.classList.toggle("open")));
    },
  });
  byId("filters").replaceChildren(controls.search, toggle, more);

  const initial = { show: "0,1", order: "data" };
  for (const [name, control] of Object.entries(controls)) control.value = control.initial = initial[name] || "";
  const value = (name) => (controls[name] ? controls[name].value : "");
  function reset() {
    for (const [name, control] of Object.entries(controls)) control.value = control.initial = initial[name] || "";
    change();
  }
  return { controls, value, runs: () => (several ? value("show").split(",").map(Number) : [0]) };
}

const textOf = (data, card) => {
  if (card.search === undefined) {
    const answers = card.r.filter(Boolean).flatMap((answer) => [...answer.t, answer.l || ""]);
    card.search = [card.id, card.q, card.t.l || "", data.categories[card.c] || "", ...answers].join("\n").toLowerCase();
  }
  return card.search;
};

// The places of the cards that fit, in order. With two runs shown, a filter holds if it holds for either of them.
function fitting(data, filters) {
  const [first, second] = filters.runs();
  const sides = second === undefined ? [first] : [first, second];
  const wanted = filters.value("search").trim().toLowerCase();
  const chosen = (name) => (filters.value(name) === "" ? null : Number(filters.value(name)));
  const [category, kind, status, from, to] = ["category", "kind", "status", "from", "to"].map(chosen);
  const result = filters.value("result");
  const flip = filters.value("flip");
  const [before, after] = second === undefined ? [0, first === 0 ? 1 : first] : [first, second];
  const fits = (answer) =>
    (kind === null || (answer.e || []).includes(kind)) &&
    (status === null || answer.s === status) &&
    (result === "" || outcome(answer) === result) &&
    (from === null || (total(answer) !== null && total(answer) >= from)) &&
    (to === null || (total(answer) !== null && total(answer) <= to));
  const found = [];
  data.cards.forEach((card, place) => {
    const answers = sides.map((run) => card.r[run]).filter(Boolean);
    if (!answers.length || (category !== null && card.c !== category) || !answers.some(fits)) return;
    if (flip) {
      const [was, is] = [outcome(card.r[before]), outcome(card.r[after])];
      const up = was === "wrong" && is === "right";
      const down = was === "right" && is === "wrong";
      if (!(flip === "any" ? up || down : flip === "up" ? up : down)) return;
    }
    if (wanted && !textOf(data, card).includes(wanted)) return;
    found.push(place);
  });
  const known = (value, otherwise) => (value === null || value === undefined ? otherwise : value);
  const scores = (place) => total(data.cards[place].r[first]);
  const length = (place) => {
    const answer = data.cards[place].r[first];
    return answer ? answer.t[0].length + answer.t[1].length : 0;
  };
  const change = (place) =>
    Math.abs(known(total(data.cards[place].r[after]), 0) - known(total(data.cards[place].r[before]), 0));
  const by = {
    low: (a, b) => known(scores(a), Infinity) - known(scores(b), Infinity),
    high: (a, b) => known(scores(b), -Infinity) - known(scores(a), -Infinity),
    long: (a, b) => length(b) - length(a),
    change: (a, b) => change(b) - change(a),
  }[filters.value("order")];
  return by ? found.sort(by) : found;
}
