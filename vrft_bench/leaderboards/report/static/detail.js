// One answer, large: the image of every run shown, what was thought and said, the score by component, the boxes.

function scoreTable(data, answer) {
  const rows = data.scores.map((name, index) => {
    const value = answer.y[index];
    const share = Math.min(Math.abs(value || 0), 1) * 100;
    const bar =
      index === 0
        ? null
        : s(
            "svg",
            { class: "meter", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
            s("rect", { class: "slot", width: 100, height: 6 }),
            s("rect", { class: value < 0 ? "bar minus" : "bar", width: share, height: 6 }),
          );
    return h(
      "tr",
      { class: index === 0 ? "first" : "" },
      h("th", { scope: "row", text: name }),
      h("td", {}, bar),
      h("td", { class: "number", text: fixed(value) }),
    );
  });
  return h("table", { class: "scores" }, h("tbody", {}, ...rows));
}

function boxTable(data, answer) {
  if (!answer.b) return null;
  const rows = answer.b.map((box, index) =>
    h(
      "tr",
      {},
      h("td", { class: "number", text: String(index + 1) }),
      h(
        "td",
        {},
        h("span", {
          class: `verdict ${box[5] === 0 ? "right" : box[5] === 1 ? "none" : "wrong"}`,
          text: data.boxKinds[box[5]],
        }),
      ),
      h("td", { class: "number", text: fixed(box[6], 2) }),
      h("td", { class: "number", text: box[4] === null ? "–" : fixed(box[4], 2) }),
      h("td", {
        class: "number wide",
        text: box
          .slice(0, 4)
          .map((value) => Math.round(value))
          .join(", "),
      }),
    ),
  );
  const head = h(
    "tr",
    {},
    h("th", { text: "" }),
    h("th", { text: "box" }),
    ...["IoU", "conf.", "x1, y1, x2, y2"].map((text) => h("th", { class: "number", text })),
  );
  return h(
    "div",
    { class: "scroll tall" },
    h("table", { class: "boxes" }, h("thead", {}, head), h("tbody", {}, ...rows)),
  );
}

function answerPanel(data, card, run) {
  const answer = card.r[run];
  const head = h(
    "header",
    {},
    data.runs.length > 1 ? h("span", { class: `chip ${runClass(run)}`, text: data.runs[run].letter }) : null,
    h("bdi", { class: "model", text: shown(data.runs[run].model) }),
    verdict(data, answer),
  );
  if (!answer)
    return h(
      "section",
      { class: "panel" },
      head,
      h("p", { class: "empty", text: "This run holds no answer to this question." }),
    );
  const [thought, said] = answer.t;
  const facts = [
    `read as ${statusOf(data, answer)}`,
    answer.f ? `ended by ${answer.f}` : null,
    answer.k ? `${many(answer.k)} tokens` : null,
  ]
    .filter(Boolean)
    .join(" · ");
  return h(
    "section",
    { class: "panel", "data-run": run },
    head,
    answer.l ? h("p", { class: "label" }, h("span", { text: "answered " }), h("bdi", { text: shown(answer.l) })) : null,
    scoreTable(data, answer),
    thought
      ? h(
          "details",
          { class: "thought" },
          h("summary", { text: `Thinking (${many(thought.length)} characters)` }),
          h("pre", { dir: "auto", text: shown(thought) }),
        )
      : null,
    h("pre", { class: "completion", dir: "auto", text: said ? shown(said) : "(nothing said)" }),
    h("p", { class: "aside", text: facts }),
    ...(answer.m || []).map((note) => h("p", { class: "aside note", text: shown(note) })),
    boxTable(data, answer),
  );
}

function makeDetail(data, filters, gallery) {
  const dialog = byId("detail");
  let thinking = false;

  function show(index) {
    if (!gallery.select(index)) return;
    const card = gallery.card(index);
    const runs = filters.runs();
    const truth = card.t.l
      ? h("p", { class: "label truth" }, h("span", { text: "truth " }), h("bdi", { text: shown(card.t.l) }))
      : null;
    const step = (by, text, name) =>
      h("button", {
        type: "button",
        class: "quiet",
        "aria-label": name,
        title: name,
        text,
        onclick: () => show(index + by),
      });
    const body = h(
      "div",
      { class: `body${runs.length > 1 ? " two" : ""}` },
      ...runs.map((run) => h("div", { class: "side" }, frame(data, card, run), answerPanel(data, card, run))),
    );
    dialog.replaceChildren(
      h(
        "header",
        { class: "bar-top" },
        step(-1, "←", "Previous (k)"),
        h("span", { class: "where", text: `${many(index + 1)} of ${many(gallery.count())}` }),
        step(1, "→", "Next (j)"),
        h("bdi", { class: "name", text: shown(card.q || card.t.l || card.id) }),
        h("small", { class: "id", text: card.n ? `${shown(card.id)} #${card.n}` : shown(card.id) }),
        h("button", {
          type: "button",
          class: "quiet close",
          "aria-label": "Close",
          title: "Close (Esc)",
          text: "✕",
          onclick: () => dialog.close(),
        }),
      ),
      truth || "",
      body,
    );
    for (const thought of dialog.querySelectorAll("details.thought")) {
      thought.open = thinking;
      thought.addEventListener("toggle", () => (thinking = thought.open));
    }
    dialog.setAttribute("data-id", card.id);
    if (!dialog.open) dialog.showModal();
    dialog.focus();
    dialog.scrollTop = 0;
    mark(card);
  }

  const mark = (card) =>
    history.replaceState(null, "", `#answer=${encodeURIComponent(card.id)}${card.n ? `&n=${card.n}` : ""}`);
  dialog.addEventListener("close", () => history.replaceState(null, "", "#gallery"));
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  const think = () => {
    for (const thought of dialog.querySelectorAll("details.thought")) thought.open = !thought.open;
  };
  return { show, think, isOpen: () => dialog.open };
}
