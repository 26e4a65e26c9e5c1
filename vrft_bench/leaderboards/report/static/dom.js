// Making elements. Text goes in as text only: there is no way here to write markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child !== null && child !== undefined) element.append(child);
  return element;
}

const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const byId = (id) => document.getElementById(id);

// Control characters have no picture of their own; a terminal's escapes are shown, never obeyed.
const shown = (text) =>
  String(text).replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, (sign) =>
    sign === "\u007f" ? "\u2421" : String.fromCharCode(0x2400 + sign.charCodeAt(0)),
  );

const fixed = (value, digits = 3) => (value === null || value === undefined ? "–" : Number(value).toFixed(digits));
const many = (count) => count.toLocaleString("en");
const runClass = (index) => `run-${index % 6}`;

// One tooltip for everything that has a data-tip.
function watchTips() {
  const tip = byId("tip");
  const show = (event) => {
    const target = event.target.closest ? event.target.closest("[data-tip]") : null;
    tip.hidden = !target;
    if (!target) return;
    (target.closest("dialog") || document.body).append(tip); // a dialog lies above everything outside it
    tip.textContent = target.getAttribute("data-tip");
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 12, window.innerWidth - width - 8);
    const top = event.clientY - height - 12;
    tip.style.transform = `translate(${Math.max(8, left)}px, ${top < 8 ? event.clientY + 16 : top}px)`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", () => (tip.hidden = true), { passive: true });
}
