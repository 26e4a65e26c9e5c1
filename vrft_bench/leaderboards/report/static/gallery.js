// The gallery: cards of one height in a grid as tall as all of them, of which only those near the window exist.

function makeGallery(data, filters, open) {
  const grid = byId("grid");
  const cards = new Map();
  let places = [];
  let columns = 1;
  let size = { width: 0, height: 0, gap: 14 };
  let current = -1;
  let waiting = false;

  function makeCard(index) {
    const card = data.cards[places[index]];
    const runs = filters.runs();
    const named = card.q || card.t.l || card.id;
    const lines = runs.map((run) => {
      const answer = card.r[run];
      return h(
        "div",
        { class: "line" },
        runs.length > 1 ? h("span", { class: `chip ${runClass(run)}`, text: data.runs[run].letter }) : null,
        verdict(data, answer),
        answer && answer.s !== 0 ? h("span", { class: "status", text: statusOf(data, answer) }) : null,
        h("b", { class: "total", text: answer ? fixed(answer.y[0], 2) : "–" }),
      );
    });
    const said = runs.map((run) => card.r[run]).find(Boolean);
    const parts = data.scores
      .slice(1)
      .map((name, index) => `${name} ${said ? fixed(said.y[index + 1], 2) : "–"}`)
      .join(" · ");
    const element = h(
      "article",
      { class: "card", role: "listitem", tabindex: "-1", "data-id": card.id, "data-n": card.n, "data-index": index },
      h("div", { class: "frames" }, ...runs.map((run) => frame(data, card, run))),
      h(
        "div",
        { class: "meta" },
        h(
          "div",
          { class: "line" },
          h("bdi", { class: "name", text: shown(named), title: shown(named) }),
          h("small", { class: "id", text: card.n ? `${shown(card.id)} #${card.n}` : shown(card.id) }),
        ),
        ...lines,
        runs.length > 1
          ? null
          : h("p", {
              class: "said",
              dir: "auto",
              text: said ? shown(said.l || said.t[1].replace(/<\/?answer>/g, "") || said.t[0] || "(empty)") : "",
            }),
        runs.length > 1 ? null : h("p", { class: "parts", text: parts }),
      ),
    );
    element.addEventListener("click", () => {
      select(index, false);
      open(index);
    });
    return element;
  }

  function measure() {
    const width = grid.clientWidth;
    const two = filters.runs().length > 1;
    const narrow = width < 560;
    const least = two ? (narrow ? width : 420) : narrow ? 150 : 248;
    size.gap = narrow ? 10 : 16;
    columns = Math.max(1, Math.floor((width + size.gap) / (least + size.gap)));
    size.width = (width - size.gap * (columns - 1)) / columns;
    const image = (two ? size.width / 2 : size.width) * 0.75;
    size.height = Math.round(image + (two ? 92 : 118));
    grid.style.height = `${Math.max(0, Math.ceil(places.length / columns) * (size.height + size.gap) - size.gap)}px`;
    grid.classList.toggle("two", two);
    grid.classList.toggle("narrow", narrow);
  }

  function place(element, index) {
    const left = (index % columns) * (size.width + size.gap);
    const top = Math.floor(index / columns) * (size.height + size.gap);
    element.style.transform = `translate(${left}px, ${top}px)`;
    element.style.width = `${size.width}px`;
    element.style.height = `${size.height}px`;
  }

  function render() {
    waiting = false;
    const box = grid.getBoundingClientRect();
    const row = size.height + size.gap;
    const first = Math.max(0, Math.floor((-box.top - 500) / row)) * columns;
    const last = Math.min(places.length, Math.ceil((window.innerHeight - box.top + 500) / row) * columns);
    for (const [index, element] of cards) {
      if (index >= first && index < last) continue;
      element.remove();
      cards.delete(index);
    }
    for (let index = first; index < last; index += 1) {
      if (cards.has(index)) continue;
      const element = makeCard(index);
      place(element, index);
      element.classList.toggle("current", index === current);
      cards.set(index, element);
      grid.append(element);
    }
  }

  function schedule() {
    if (!waiting) requestAnimationFrame(render);
    waiting = true;
  }

  function rebuild() {
    for (const element of cards.values()) element.remove();
    cards.clear();
    measure();
    render();
  }

  function update() {
    const kept = current >= 0 ? places[current] : -1;
    places = fitting(data, filters);
    current = kept < 0 ? -1 : places.indexOf(kept);
    const count =
      places.length === data.cards.length
        ? many(places.length)
        : `${many(places.length)} of ${many(data.cards.length)}`;
    byId("count").textContent = count;
    byId("empty").hidden = places.length > 0;
    if (grid.getBoundingClientRect().top < 0) byId("gallery").scrollIntoView(); // what is left begins at its beginning
    rebuild();
  }

  function select(index, scroll = true) {
    if (index < 0 || index >= places.length) return false;
    const before = cards.get(current);
    if (before) before.classList.remove("current");
    current = index;
    if (scroll) {
      const top = grid.getBoundingClientRect().top + Math.floor(index / columns) * (size.height + size.gap);
      const head = byId("filters").getBoundingClientRect().height + 64;
      if (top < head || top + size.height > window.innerHeight - 12) window.scrollBy({ top: top - head });
      render();
    }
    const now = cards.get(current);
    if (now) now.classList.add("current");
    return true;
  }

  window.addEventListener("scroll", schedule, { passive: true });
  new ResizeObserver(schedule).observe(document.body); // what is above the grid may grow or shrink
  new ResizeObserver(() => {
    if (grid.clientWidth !== size.seen) {
      size.seen = grid.clientWidth;
      rebuild();
    }
  }).observe(grid);
  return {
    update,
    select,
    current: () => current,
    count: () => places.length,
    columns: () => columns,
    card: (index) => data.cards[places[index]],
    find: (id, n) => places.findIndex((place) => data.cards[place].id === id && data.cards[place].n === n),
  };
}
