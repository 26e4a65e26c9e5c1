// Which charts a report has, each in a figure of its own that is drawn anew when its width changes.

const byLetter = (data) => data.runs.map((run) => run.letter);

function figure(title, about, draw, options = {}) {
  const body = h("div", { class: "plot" });
  const select = options.choices
    ? h(
        "select",
        { "aria-label": `${title}: which` },
        ...options.choices.map(([value, text]) => h("option", { value, text })),
      )
    : null;
  const element = h("figure", {}, h("figcaption", {}, h("h3", { text: title }), select, h("p", { text: about })), body);
  let drawn = 0;
  const redraw = () => {
    drawn = Math.floor(body.clientWidth);
    const made = drawn ? draw(drawn, select ? select.value : null) : null;
    body.replaceChildren(made || h("p", { class: "empty", text: "Nothing to draw." }));
  };
  if (select) select.addEventListener("change", redraw);
  new ResizeObserver(() => {
    if (Math.floor(body.clientWidth) !== drawn) redraw();
  }).observe(body);
  figure.waiting.push(redraw);
  return element;
}

figure.waiting = [];

// Draws the figures that were made, once they are on the page: at once, so that nothing below them moves later.
function drawWaiting() {
  for (const redraw of figure.waiting.splice(0)) redraw();
}

function categoryFigure(data) {
  const names = [...new Set(data.charts.flatMap((one) => one.categories.map((bar) => bar.name)))];
  if (names.length < 2) return null;
  const lookup = data.charts.map((one) => new Map(one.categories.map((bar) => [bar.name, bar])));
  const rows = names.map((name) => ({
    name,
    values: lookup.map((bars) => {
      const bar = bars.get(name) || { value: null, low: null, high: null, count: 0 };
      const interval = bar.low === null ? "" : ` [${fixed(bar.low)}, ${fixed(bar.high)}]`;
      return {
        ...bar,
        short: fixed(bar.value, 2),
        text: `${fixed(bar.value)}${interval}, ${many(bar.count || 0)} in the data`,
      };
    }),
  }));
  const value = (row, index) => (row.values[index].value === null ? -1 : row.values[index].value);
  const orders = {
    data: () => 0,
    best: (a, b) => value(b, 0) - value(a, 0),
    gain: (a, b) => value(b, 1) - value(b, 0) - (value(a, 1) - value(a, 0)),
  };
  const choices = [
    ["data", "data order"],
    ["best", "highest first"],
  ];
  if (data.runs.length > 1) choices.push(["gain", "largest gain of B first"]);
  const labels = { title: `${data.headline} by category`, names: byLetter(data), count: data.runs.length };
  return figure(
    `${data.headline} by category`,
    "Bars with 95% intervals.",
    (width, order) => rowBars(width, [...rows].sort(orders[order]), 1, labels),
    { choices },
  );
}

function precisionRecallFigure(data) {
  if (!data.charts.some((one) => one.mean_precision.length)) return null;
  const names = [...new Set(data.charts.flatMap((one) => Object.keys(one.precision_recall)))];
  const choices = [["", "mean of all"], ...names.map((name, index) => [String(index), shown(name)])];
  const labels = { title: "Precision and recall", x: "recall", y: "precision" };
  return figure(
    "Precision and recall",
    "At IoU .5: the highest precision at each recall or beyond.",
    (width, choice) => {
      const series = data.charts.map((one, index) => {
        const curve = choice === "" ? one.mean_precision : one.precision_recall[names[Number(choice)]] || [];
        return { name: data.runs[index].letter, index, points: curve.map((value, level) => [level / 100, value]) };
      });
      return lineChart(
        width,
        250,
        series.filter((one) => one.points.length),
        labels,
        { x: [0, 1], y: [0, 1] },
      );
    },
    { choices },
  );
}

function calibrationFigure(data) {
  if (!data.charts.some((one) => one.calibration.length)) return null;
  const errors = data.charts.map((one, index) => `${data.runs[index].letter} ${fixed(one.ece)}`).join(", ");
  const labels = { title: "Calibration", x: "stated confidence", y: "share right at IoU .5", names: byLetter(data) };
  return figure(
    "Calibration of confidence",
    `On the diagonal, confidence means what it says. Mean distance: ${errors}.`,
    (width) =>
      calibrationChart(
        width,
        250,
        data.charts.map((one) => one.calibration),
        labels,
      ),
  );
}

function histogramFigure(data, key, title, about, range, x) {
  if (!data.charts.some((one) => one[key].length)) return null;
  const labels = { title, x, y: "count", names: byLetter(data) };
  return figure(title, about, (width) =>
    histogram(
      width,
      250,
      data.charts.map((one) => one[key]),
      range,
      labels,
    ),
  );
}

function countFigure(data, key, title, about, names) {
  const used = names.filter((name) => data.charts.some((one) => one[key][name]));
  if (!used.length) return null;
  const most = Math.max(...data.charts.flatMap((one) => Object.values(one[key])));
  const labels = { title, names: byLetter(data), count: data.runs.length };
  const rows = used.map((name) => ({
    name: name.replace("_", " "),
    values: data.charts.map((one) => {
      const value = one[key][name] || 0;
      return { value, short: many(value), text: many(value) };
    }),
  }));
  return figure(title, about, (width) => rowBars(width, rows, most, labels));
}

function confusionFigure(data) {
  if (!data.charts.some((one) => one.confusions.length)) return null;
  const several = data.runs.length > 1;
  const rows = data.charts.flatMap((one, index) =>
    one.confusions.map(([truth, said, count]) =>
      h(
        "tr",
        {},
        several ? h("td", {}, h("span", { class: `chip ${runClass(index)}`, text: data.runs[index].letter })) : null,
        h("td", {}, h("bdi", { text: shown(truth) })),
        h("td", {}, h("bdi", { text: shown(said) })),
        h("td", { class: "number", text: many(count) }),
      ),
    ),
  );
  const head = h(
    "tr",
    {},
    ...[...(several ? [""] : []), "truth", "answered"].map((text) => h("th", { text })),
    h("th", { class: "number", text: "times" }),
  );
  return figure("Most frequent confusions", "Which class was named for which.", () =>
    h("div", { class: "scroll tall" }, h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows))),
  );
}

// The mean over a fifteenth of the points around each: what a noisy log says.
function smoothed(points) {
  const reach = Math.floor(points.length / 30);
  return points.map(([step], index) => {
    const near = points.slice(Math.max(0, index - reach), index + reach + 1);
    return [step, near.reduce((sum, point) => sum + point[1], 0) / near.length];
  });
}

function trainingLines(name, index, points) {
  if (points.length < 40) return [{ name, index, points }];
  return [
    { name, index, points, faint: true },
    { name: `${name}, mean`, index, points: smoothed(points) },
  ];
}

function trainingFigures(data) {
  return data.trainings.flatMap((training) => {
    const index = training.run === null ? 5 : training.run;
    const found = [];
    const chosen = Object.keys(training.series);
    if (training.evaluated.length) {
      const rows = training.evaluated.filter((row) => row.value !== null);
      const series = [
        {
          name: training.metric,
          index,
          points: rows.map((row) => [row.step, row.value]),
          band: rows.filter((row) => row.low !== null && row.high !== null).map((row) => [row.step, row.low, row.high]),
          marks: rows.map((row) => ({
            x: row.step,
            y: row.value,
            class: row.mark === "fine" ? "" : "alarm",
            tip: `step ${row.step}: ${training.metric} ${fixed(row.value)}${row.low === null ? "" : ` [${fixed(row.low)}, ${fixed(row.high)}]`}, reward ${fixed(row.reward)}${row.mark === "fine" ? "" : `, ${row.mark}`}`,
          })),
        },
      ];
      const labels = { title: "Checkpoints", x: "step", y: shown(training.metric) };
      found.push(
        figure("Checkpoints", `The metric while ${shown(training.name)} was trained.`, (width) =>
          lineChart(width, 250, series, labels),
        ),
      );
    }
    if (chosen.length) {
      const choices = chosen.map((name) => [name, shown(name)]);
      found.push(
        figure(
          "Training",
          `What ${shown(training.name)} logged, by step.`,
          (width, name) =>
            lineChart(width, 250, trainingLines(name, index, training.series[name]), {
              title: name,
              x: "step",
              y: shown(name),
            }),
          { choices },
        ),
      );
    }
    return found;
  });
}

function drawCharts(data) {
  const boxes = data.family === "grounding" ? "First boxes" : "Predicted boxes";
  const figures = [
    categoryFigure(data),
    precisionRecallFigure(data),
    countFigure(
      data,
      "errors",
      "Mistakes",
      data.family === "detection"
        ? "Wrong boxes by kind, and objects missed, at IoU .5."
        : "Answers by kind of mistake.",
      data.kinds,
    ),
    histogramFigure(data, "ious", "IoU", `${boxes} by their best overlap with the truth.`, [0, 1], "IoU"),
    calibrationFigure(data),
    histogramFigure(data, "scores", "Score", "Answers by their total score.", data.charts[0].score_range, "total"),
    countFigure(data, "statuses", "How answers were read", "Answers by parse status.", data.statuses),
    confusionFigure(data),
    ...trainingFigures(data),
  ].filter(Boolean);
  byId("chart-grid").replaceChildren(...figures);
  drawWaiting();
  byId("charts").hidden = !figures.length;
}
