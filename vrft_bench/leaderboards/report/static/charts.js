// Small charts in SVG: bars with intervals, lines, points with intervals, histograms. Runs share one colour per letter.

const MARGIN = { top: 10, right: 14, bottom: 34, left: 52 };

// Round steps between low and high, about `wanted` of them.
function ticks(low, high, wanted = 5) {
  const span = high - low || 1;
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => span / one <= wanted) || rough;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) {
    found.push(Number(value.toPrecision(12)));
  }
  return found;
}

const tickText = (value) =>
  Math.abs(value) >= 10000
    ? `${value / 1000}k`
    : value !== 0 && Math.abs(value) < 0.001
      ? value.toExponential(0)
      : String(Number(value.toPrecision(4)));

// A frame with axes; `x` and `y` are [low, high]. Gives the SVG and the two scales.
function axes(width, height, x, y, labels) {
  const right = width - MARGIN.right;
  const bottom = height - MARGIN.bottom;
  const px = (value) => MARGIN.left + ((value - x[0]) / (x[1] - x[0] || 1)) * (right - MARGIN.left);
  const py = (value) => bottom - ((value - y[0]) / (y[1] - y[0] || 1)) * (bottom - MARGIN.top);
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": labels.title });
  for (const value of ticks(y[0], y[1], 4)) {
    svg.append(s("line", { class: "rule", x1: MARGIN.left, x2: right, y1: py(value), y2: py(value) }));
    svg.append(
      s("text", { class: "tick", x: MARGIN.left - 7, y: py(value) + 4, "text-anchor": "end", text: tickText(value) }),
    );
  }
  for (const value of ticks(x[0], x[1], width < 360 ? 4 : 6)) {
    svg.append(
      s("text", { class: "tick", x: px(value), y: bottom + 15, "text-anchor": "middle", text: tickText(value) }),
    );
  }
  svg.append(s("line", { class: "axis", x1: MARGIN.left, x2: right, y1: bottom, y2: bottom }));
  svg.append(
    s("text", { class: "label", x: (MARGIN.left + right) / 2, y: height - 4, "text-anchor": "middle", text: labels.x }),
  );
  svg.append(
    s("text", {
      class: "label",
      x: 0,
      y: 0,
      "text-anchor": "middle",
      transform: `translate(11 ${(MARGIN.top + bottom) / 2}) rotate(-90)`,
      text: labels.y,
    }),
  );
  return { svg, px, py, bottom };
}

const path = (points) => points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

// series: [{name, index, points: [[x, y]], band: [[x, low, high]], marks}]
function lineChart(width, height, series, labels, ranges = {}) {
  const all = series.flatMap((one) => [
    ...one.points.map((point) => point[1]),
    ...(one.band || []).flatMap((row) => row.slice(1)),
  ]);
  const xs = series.flatMap((one) => one.points.map((point) => point[0]));
  if (!xs.length) return null;
  const low = Math.min(...all);
  const high = Math.max(...all);
  const pad = (high - low) * 0.06 || Math.abs(high) * 0.1 || 0.5;
  const x = ranges.x || [Math.min(...xs), Math.max(...xs)];
  const y = ranges.y || [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
  const { svg, px, py } = axes(width, height, x, y, labels);
  for (const one of series) {
    if (one.band && one.band.length > 1) {
      const outline = [
        ...one.band.map((row) => [px(row[0]), py(row[2])]),
        ...one.band.map((row) => [px(row[0]), py(row[1])]).reverse(),
      ];
      svg.append(s("path", { class: `band ${runClass(one.index)}`, d: `${path(outline)}Z` }));
    }
    svg.append(
      s("path", {
        class: `line ${runClass(one.index)}${one.faint ? " faint" : ""}`,
        d: path(one.points.map(([a, b]) => [px(a), py(b)])),
      }),
    );
    const dots =
      one.points.length <= 60
        ? one.points
        : one.points.filter((_, index) => index % Math.ceil(one.points.length / 60) === 0);
    for (const [a, b] of dots) {
      svg.append(
        s("circle", {
          class: `hover ${runClass(one.index)}`,
          cx: px(a),
          cy: py(b),
          r: 7,
          "data-tip": `${one.name}: ${tickText(a)} → ${fixed(b)}`,
        }),
      );
    }
    for (const mark of one.marks || []) {
      svg.append(
        s("circle", {
          class: `dot ${runClass(one.index)} ${mark.class || ""}`,
          cx: px(mark.x),
          cy: py(mark.y),
          r: 3.5,
          "data-tip": mark.tip,
        }),
      );
    }
  }
  return svg;
}

// bins: one list of counts per run, over [low, high].
function histogram(width, height, runs, range, labels) {
  const count = Math.max(...runs.map((run) => run.length));
  const most = Math.max(1, ...runs.flat());
  const { svg, px, py, bottom } = axes(width, height, range, [0, most], labels);
  const step = (range[1] - range[0]) / count;
  runs.forEach((counts, index) => {
    counts.forEach((value, bin) => {
      const whole = px(range[0] + step) - px(range[0]);
      const own = (whole - 2) / runs.length;
      const left = px(range[0] + bin * step) + 1 + index * own;
      const text = `${labels.names[index]}: ${many(value)} from ${tickText(range[0] + bin * step)} to ${tickText(range[0] + (bin + 1) * step)}`;
      if (value)
        svg.append(
          s("rect", {
            class: `bar ${runClass(index)}`,
            x: left,
            y: py(value),
            width: Math.max(own - 0.5, 0.8),
            height: bottom - py(value),
            rx: Math.min(2, own / 4),
            "data-tip": text,
          }),
        );
    });
  });
  return svg;
}

// rows: [{name, values: [{value, low, high, text}]}], a row of bars per name and a bar per run.
function rowBars(width, rows, high, labels) {
  const rowHeight = Math.min(46, Math.max(labels.count * 11 + 12, 242 / rows.length)); // few rows fill the figure
  const bar = Math.min(14, (rowHeight - 12) / labels.count - 2);
  const left = Math.min(150, Math.max(84, width * 0.3));
  const right = width - 54;
  const px = (value) => left + (Math.min(Math.max(value, 0), high) / (high || 1)) * (right - left);
  const height = rows.length * rowHeight + 8;
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": labels.title });
  rows.forEach((row, number) => {
    const top = number * rowHeight + (rowHeight - labels.count * (bar + 2)) / 2;
    const limit = Math.floor((left - 10) / 6.3);
    const name = row.name.length > limit ? `${row.name.slice(0, limit - 1)}…` : row.name;
    svg.append(
      s("text", {
        class: "name",
        x: left - 10,
        y: top + (labels.count * (bar + 2)) / 2 + 3,
        "text-anchor": "end",
        text: shown(name),
        "data-tip": shown(row.name),
      }),
    );
    row.values.forEach((one, index) => {
      const y = top + index * (bar + 2);
      const tip = `${shown(row.name)}, ${labels.names[index]}: ${one.text}`;
      svg.append(s("rect", { class: "slot", x: left, y, width: right - left, height: bar, rx: 2, "data-tip": tip }));
      if (one.value === null || one.value === undefined) return;
      svg.append(
        s("rect", {
          class: `bar ${runClass(index)}`,
          x: left,
          y,
          width: Math.max(px(one.value) - left, 1),
          height: bar,
          rx: 2,
          "data-tip": tip,
        }),
      );
      let end = px(one.value);
      if (one.low !== null && one.low !== undefined && one.high !== null && one.high !== undefined) {
        const middle = y + bar / 2;
        svg.append(
          s("path", {
            class: "whisker",
            d: `M${px(one.low)} ${middle}H${px(one.high)}M${px(one.low)} ${middle - 3}v6M${px(one.high)} ${middle - 3}v6`,
          }),
        );
        end = Math.max(end, px(one.high));
      }
      svg.append(s("text", { class: "tick", x: end + 6, y: y + bar / 2 + 4, text: one.short }));
    });
  });
  return svg;
}

// bins per run: [{count, confidence, right, low, high}]
function calibrationChart(width, height, runs, labels) {
  const { svg, px, py } = axes(width, height, [0, 1], [0, 1], labels);
  svg.append(s("line", { class: "ideal", x1: px(0), y1: py(0), x2: px(1), y2: py(1) }));
  const most = Math.max(1, ...runs.flat().map((bin) => bin.count));
  runs.forEach((bins, index) => {
    if (bins.length > 1)
      svg.append(
        s("path", {
          class: `line ${runClass(index)}`,
          d: path(bins.map((bin) => [px(bin.confidence), py(bin.right)])),
        }),
      );
    for (const bin of bins) {
      const x = px(bin.confidence);
      const tip = `${labels.names[index]}: ${many(bin.count)} boxes of mean confidence ${fixed(bin.confidence, 2)}, ${fixed(bin.right, 2)} right [${fixed(bin.low, 2)}, ${fixed(bin.high, 2)}]`;
      svg.append(s("path", { class: `whisker ${runClass(index)}`, d: `M${x} ${py(bin.low)}V${py(bin.high)}` }));
      svg.append(
        s("circle", {
          class: `dot ${runClass(index)}`,
          cx: x,
          cy: py(bin.right),
          r: 2.5 + 5 * Math.sqrt(bin.count / most),
          "data-tip": tip,
        }),
      );
    }
  });
  return svg;
}
