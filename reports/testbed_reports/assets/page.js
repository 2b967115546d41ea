"use strict";
// Only comfort: values under the pointer, and zooming in time. Everything is on the page without it.
(() => {
  window.addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll(".card details, #figures details")) fold.open = true;
  });
  const source = document.getElementById("data");
  const svg = document.querySelector("svg.timeline");
  if (!source || !svg) return;
  const data = JSON.parse(source.textContent);
  const chart = svg.parentElement;
  const plot = svg.querySelector("svg.plot");
  const ticks = svg.querySelector("g.ticks");
  const cursor = svg.querySelector("line.cursor");
  const bottom = plot.viewBox.baseVal.height;
  const all = data.planes[0][1].length;
  const least = Math.min(8, all);
  let from = 0, to = all;

  const pixels = (window) => data.left + (window - from) / (to - from) * data.width;
  const seconds = (window) => data.zero + window * data.window;
  const sign = (text) => text.replace("-", "\u2212");

  function drawTicks() {
    const left = seconds(from), span = (to - from) * data.window;
    const power = 10 ** Math.floor(Math.log10(span / 9));
    const step = power * [1, 2, 5, 10].find((factor) => power * factor >= span / 9 * (1 - 1e-9));
    const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const parts = [];
    for (let n = Math.ceil(left / step - 1e-9); n * step <= left + span * (1 + 1e-9); n++) {
      const x = (data.left + (n * step - left) / span * data.width).toFixed(1);
      const label = n ? sign((n * step).toFixed(decimals)) : "0";
      parts.push(`<path d="M${x} ${data.top}V${bottom + 5}" class="tick"/>`,
        `<text x="${x}" y="${bottom + 18}" class="axis" text-anchor="middle">${label}</text>`);
    }
    ticks.innerHTML = parts.join("");
  }

  function show(a, b) {
    const width = Math.min(Math.max(b - a, least), all);
    from = Math.min(Math.max((a + b - width) / 2, 0), all - width);
    to = from + width;
    plot.setAttribute("viewBox", `${from} 0 ${to - from} ${bottom}`);
    for (const label of svg.querySelectorAll(".at")) {
      const window = Number(label.dataset.x);
      const inside = window >= from && window <= to;
      label.setAttribute("x", pixels(window) + Number(label.dataset.dx || 0));
      label.setAttribute("visibility", inside ? "visible" : "hidden");
    }
    drawTicks();
    leave();
  }

  const zoom = document.querySelector(".zoom");
  const buttons = [];
  function addButton(label, a, b) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.addEventListener("click", () => { show(a, b); mark(button); });
    buttons.push(button);
    zoom.append(button);
  }
  function mark(pressed) {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === pressed));
  }
  addButton("Whole run", 0, all);
  data.faults.forEach(([a, b], n) => {
    const around = Math.max((b - a) * 0.35, least);
    addButton(data.faults.length > 1 ? `Fault ${n + 1}` : "Around the fault", a - around, b + around);
  });
  zoom.hidden = false;
  mark(buttons[0]);
  svg.setAttribute("aria-description", "Drag to zoom. With the keyboard: arrows move, plus and minus zoom, Escape shows all.");

  const readout = document.createElement("div");
  readout.className = "readout";
  readout.hidden = true;
  const brush = document.createElement("div");
  brush.className = "brush";
  brush.hidden = true;
  chart.append(readout, brush);

  const windowAt = (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    return from + (x - data.left) / data.width * (to - from);
  };
  function rate(packets, index) {
    if (!data.bits) return `${packets} packets`;
    const length = data.window * (index === all - 1 ? data.last : 1);
    return `${(packets * data.bits / length / 1e6).toPrecision(4)} Mbit/s`;
  }
  function leave() {
    readout.hidden = true;
    cursor.setAttribute("visibility", "hidden");
  }
  function hover(event) {
    const position = windowAt(event);
    if (position < from || position > to) return leave();
    const index = Math.min(Math.max(Math.floor(position), 0), all - 1);
    cursor.setAttribute("x1", pixels(position));
    cursor.setAttribute("x2", pixels(position));
    cursor.setAttribute("visibility", "visible");
    const rows = data.planes.map(([plane, delivered, lost]) =>
      `<tr><td>plane ${plane}</td><td>${rate(delivered[index], index)}</td><td>${lost[index] || ""}</td></tr>`);
    readout.innerHTML = `<table><thead><tr><th>${sign(seconds(index).toFixed(4))} s</th><th></th><th>lost</th></tr></thead><tbody>${rows.join("")}</tbody></table>`;
    readout.hidden = false;
    const box = chart.getBoundingClientRect();
    const x = event.clientX - box.left, room = readout.offsetWidth + 18;
    readout.style.left = `${x + room > box.width ? x - room : x + 18}px`;
    readout.style.top = `${Math.min(event.clientY - box.top + 14, box.height - readout.offsetHeight)}px`;
  }

  let start = null;
  plot.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    start = { window: windowAt(event), x: event.clientX };
    plot.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    hover(event);
    if (!start) return;
    const left = chart.getBoundingClientRect().left;
    brush.style.left = `${Math.min(event.clientX, start.x) - left}px`;
    brush.style.width = `${Math.abs(event.clientX - start.x)}px`;
    brush.hidden = false;
  });
  svg.addEventListener("pointerup", (event) => {
    if (start && Math.abs(event.clientX - start.x) > 6) {
      const ends = [start.window, windowAt(event)].sort((a, b) => a - b);
      show(ends[0], ends[1]);
      mark(null);
    }
    start = null;
    brush.hidden = true;
  });
  svg.addEventListener("pointercancel", () => { start = null; brush.hidden = true; });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("dblclick", () => { show(0, all); mark(buttons[0]); });
  svg.addEventListener("keydown", (event) => {
    const width = to - from, move = width / 5;
    const steps = {
      ArrowLeft: [from - move, to - move], ArrowRight: [from + move, to + move],
      "+": [from + move, to - move], "=": [from + move, to - move], "-": [from - move, to + move], Escape: [0, all],
    };
    const next = steps[event.key];
    if (!next) return;
    event.preventDefault();
    show(next[0], next[1]);
    mark(to - from === all ? buttons[0] : null);
  });
})();
