"use strict";
// Only comfort: values under the pointer, and zooming in time. Everything is on the page without it.
(() => {
  // Charts of one group share a time axis and zoom together.
  const groups = new Map();
  for (const figure of document.querySelectorAll(".chart")) {
    const source = figure.querySelector("script[type='application/json']");
    const svg = figure.querySelector("svg.timeline");
    if (!source || !svg) continue;
    const name = figure.dataset.group || "chart";
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push({ figure, svg, data: JSON.parse(source.textContent) });
  }
  for (const [name, charts] of groups) start(charts, document.querySelector(`.zoom[data-group="${name}"]`));

  function start(charts, zoom) {
    const first = charts[0].data;
    const all = first.count;
    const least = Math.min(first.labels ? 3 : 8, all);
    const sign = (text) => text.replace("-", "\u2212");
    const views = charts.map(view);
    const buttons = [];
    let from = 0, to = all;

    function show(a, b) {
      const width = Math.min(Math.max(b - a, least), all);
      from = Math.min(Math.max((a + b - width) / 2, 0), all - width);
      to = from + width;
      for (const each of views) each.draw();
    }
    function mark(pressed) {
      for (const button of buttons) button.setAttribute("aria-pressed", String(button === pressed));
    }
    function whole() { show(0, all); mark(buttons[0] || null); }
    function addButton(label, a, b) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.addEventListener("click", () => { show(a, b); mark(button); });
      buttons.push(button);
      zoom.append(button);
    }
    if (zoom) {
      addButton(first.all || (first.labels ? "All runs" : "Whole run"), 0, all);
      const spans = first.faults || [];
      spans.forEach(([a, b], n) => {
        const around = Math.max((b - a) * 0.35, least);
        addButton(spans.length > 1 ? `Fault ${n + 1}` : "Around the fault", a - around, b + around);
      });
      if (first.labels && !first.all && all > 20) addButton("Last 14", all - 14, all);
      zoom.hidden = false;
      mark(buttons[0]);
    }

    function view({ figure, svg, data }) {
      const plot = svg.querySelector("svg.plot");
      const ticks = svg.querySelector("g.ticks");
      const cursor = svg.querySelector("line.cursor");
      const bottom = plot.viewBox.baseVal.height;
      const pixels = (window) => data.left + (window - from) / (to - from) * data.width;
      const seconds = (window) => data.zero + window * data.window;
      const hint = document.createElement("p");
      hint.className = "hint";
      hint.id = `hint-${Math.random().toString(36).slice(2)}`;
      hint.textContent = "Drag to zoom. With the keyboard: arrows move, + and \u2212 zoom, Escape shows all.";
      figure.append(hint);
      svg.setAttribute("aria-describedby", hint.id);

      function tick(x, label, parts) {
        parts.push(`<path d="M${x} ${data.top}V${bottom + 5}" class="tick"/>`,
          `<text x="${x}" y="${bottom + 18}" class="axis" text-anchor="middle">${label}</text>`);
      }
      function drawTicks() {
        const parts = [];
        if (data.labels) {
          const step = Math.max(Math.ceil((to - from) / 9), 1);
          for (let n = Math.ceil(from / step) * step; n < to; n += step) {
            const x = pixels(n + 0.5);
            if (x < data.left || x > data.left + data.width || !data.labels[n]) continue;
            tick(x.toFixed(1), data.labels[n][0].replace(/[&<>]/g, ""), parts);
          }
        } else {
          const left = seconds(from), span = (to - from) * data.window;
          const power = 10 ** Math.floor(Math.log10(span / 9));
          const step = power * [1, 2, 5, 10].find((factor) => power * factor >= span / 9 * (1 - 1e-9));
          const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
          for (let n = Math.ceil(left / step - 1e-9); n * step <= left + span * (1 + 1e-9); n++) {
            const x = (data.left + (n * step - left) / span * data.width).toFixed(1);
            tick(x, n ? sign((n * step).toFixed(decimals)) : "0", parts);
          }
        }
        ticks.innerHTML = parts.join("");
      }
      function draw() {
        plot.setAttribute("viewBox", `${from} 0 ${to - from} ${bottom}`);
        for (const label of svg.querySelectorAll(".at")) {
          const window = Number(label.dataset.x);
          label.setAttribute("x", pixels(window) + Number(label.dataset.dx || 0));
          label.setAttribute("visibility", window >= from && window <= to ? "visible" : "hidden");
        }
        drawTicks();
        leave();
      }

      const readout = document.createElement("div");
      readout.className = "readout";
      readout.hidden = true;
      const brush = document.createElement("div");
      brush.className = "brush";
      brush.hidden = true;
      figure.append(readout, brush);

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
      function table(rows, head) {
        // Cells are text: names come from result files.
        const made = document.createElement("table");
        for (const [cells, kind] of [[head, "th"], ...rows.map((row) => [row, "td"])]) {
          const line = made.insertRow();
          for (const cell of cells) {
            const element = document.createElement(kind);
            element.textContent = cell;
            line.append(element);
          }
        }
        return made;
      }
      function leave() {
        readout.hidden = true;
        cursor.setAttribute("visibility", "hidden");
      }
      function hover(event) {
        const position = windowAt(event);
        if (position < from || position > to) return leave();
        const index = Math.min(Math.max(Math.floor(position), 0), all - 1);
        const at = data.labels ? index + 0.5 : position;
        cursor.setAttribute("x1", pixels(at));
        cursor.setAttribute("x2", pixels(at));
        cursor.setAttribute("visibility", "visible");
        readout.replaceChildren(data.labels
          ? table((data.labels[index] || []).slice(1).map((text) => [text]), [data.labels[index] ? data.labels[index][0] : ""])
          : table(data.strips.map(([label, delivered, lost, late]) =>
            [label, rate(delivered[index], index), lost[index] || "", late[index] || ""]),
            [`${sign(seconds(index).toFixed(4))} s`, "", "lost", data.strips.some((strip) => strip[3].length) ? "reordered" : ""]));
        readout.hidden = false;
        const box = figure.getBoundingClientRect();
        const x = event.clientX - box.left, room = readout.offsetWidth + 18;
        readout.style.left = `${x + room > box.width ? x - room : x + 18}px`;
        readout.style.top = `${Math.max(Math.min(event.clientY - box.top + 14, box.height - readout.offsetHeight), 0)}px`;
      }

      let begun = null;
      // On the whole drawing: the plot itself feels the pointer only where something is painted.
      svg.addEventListener("pointerdown", (event) => {
        const window = windowAt(event);
        if (event.button || window < from || window > to) return;
        begun = { window, x: event.clientX };
        svg.setPointerCapture(event.pointerId);
      });
      svg.addEventListener("pointermove", (event) => {
        hover(event);
        if (!begun) return;
        const left = figure.getBoundingClientRect().left;
        brush.style.left = `${Math.min(event.clientX, begun.x) - left}px`;
        brush.style.width = `${Math.abs(event.clientX - begun.x)}px`;
        brush.hidden = false;
      });
      svg.addEventListener("pointerup", (event) => {
        if (begun && Math.abs(event.clientX - begun.x) > 6) {
          const ends = [begun.window, windowAt(event)].sort((a, b) => a - b);
          show(ends[0], ends[1]);
          mark(null);
        }
        begun = null;
        brush.hidden = true;
      });
      svg.addEventListener("pointercancel", () => { begun = null; brush.hidden = true; });
      svg.addEventListener("pointerleave", leave);
      svg.addEventListener("dblclick", whole);
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
        mark(to - from === all ? buttons[0] || null : null);
      });
      return { draw };
    }
  }
})();
