// An image with the truth and one run's boxes over it. Shapes are in original pixels: the drawing's own coordinates.

const CLASS_OF = { right: "right", "not counted": "other" };

const flat = (polygon) => {
  const points = [];
  for (let index = 0; index + 1 < polygon.length; index += 2) points.push(`${polygon[index]},${polygon[index + 1]}`);
  return points.join(" ");
};

const rectangle = ([x1, y1, x2, y2]) => ({ x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0) });

// Every shape is drawn twice: a dark casing first, so that it stands out on any image.
function outlined(svg, tag, attributes, name, tip) {
  svg.append(s(tag, { ...attributes, class: `casing ${name.split(" ")[0]}`, "data-box": null }));
  svg.append(s(tag, { ...attributes, class: `shape ${name}`, "data-tip": tip }));
}

function overlay(data, card, answer, width, height) {
  const svg = s("svg", { class: "overlay", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  const truth = card.t;
  const [crowd, ignored] = truth.x || [[], []];
  for (const box of crowd) outlined(svg, "rect", rectangle(box), "crowd other", "a region that does not count");
  for (const polygon of ignored)
    outlined(svg, "polygon", { points: flat(polygon) }, "crowd other", "a region that does not count");
  for (const polygon of truth.p || []) svg.append(s("polygon", { points: flat(polygon), class: "shape mask truth" }));
  for (const box of truth.b || []) outlined(svg, "rect", rectangle(box), "truth", "truth");
  const boxes = answer && answer.b ? answer.b : [];
  boxes.forEach((box, index) => {
    const kind = data.boxKinds[box[5]];
    const stated = box[4] === null ? "" : `, confidence ${fixed(box[4], 2)}`;
    outlined(
      svg,
      "rect",
      { ...rectangle(box), "data-box": index },
      `found ${CLASS_OF[kind] || "wrong"}`,
      `${kind}, IoU ${fixed(box[6], 2)}${stated}`,
    );
  });
  return svg;
}

// A predicted mask: the lengths of its runs, off and on in turn, column by column.
function maskCanvas([width, height, runs], right) {
  const canvas = h("canvas", { class: "mask found", width, height });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const colour = right ? [87, 166, 255, 120] : [255, 93, 64, 120];
  let at = 0;
  runs.forEach((run, index) => {
    for (let end = at + run; at < end; at += 1) {
      if (index % 2) picture.data.set(colour, 4 * ((at % height) * width + Math.floor(at / height)));
    }
  });
  context.putImageData(picture, 0, 0);
  return canvas;
}

function frame(data, card, run) {
  const answer = card.r[run];
  const element = h("div", { class: `frame ${runClass(run)}`, "data-run": run });
  const [url, width, height, why] = card.i >= 0 ? data.images[card.i] : ["", 0, 0, "the data are not here"];
  if (url) element.append(h("img", { src: url, alt: "", decoding: "async", draggable: "false", width, height }));
  else
    element.append(h("div", { class: "no-image" }, h("span", { text: "no image" }), h("small", { text: shown(why) })));
  if (answer && answer.g) element.append(maskCanvas(answer.g, answer.ok));
  if (width && height) element.append(overlay(data, card, answer, width, height));
  if (data.runs.length > 1) element.append(h("span", { class: `chip ${runClass(run)}`, text: data.runs[run].letter }));
  if (!answer) element.append(h("span", { class: "no-answer", text: "no answer" }));
  return element;
}

// right, wrong, or nothing where there is no truth
const outcome = (answer) => (!answer || answer.ok === null ? "none" : answer.ok ? "right" : "wrong");
const mistakes = (data, answer) => (answer.e || []).map((kind) => data.kinds[kind]);
const statusOf = (data, answer) => (answer.s < 0 ? "failed" : data.statuses[answer.s].replace("_", " "));

function verdict(data, answer) {
  const result = outcome(answer);
  const said = !answer
    ? "no answer"
    : result === "right"
      ? "right"
      : mistakes(data, answer).join(", ") || (result === "wrong" ? "wrong" : "");
  return h("span", { class: `verdict ${result}`, text: said });
}
