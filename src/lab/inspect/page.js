"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const slices = data.slices;
  const buttons = Array.from(document.querySelectorAll("#strip .slice"));
  const maps = document.getElementById("maps");
  const readout = document.getElementById("readout");
  const heading = document.getElementById("frame-name");
  const facts = document.getElementById("frame-facts");
  const numbers = document.getElementById("frame-numbers");
  const dots = Array.from(document.querySelectorAll("#retention circle")).slice(0, slices.length);
  if (!buttons.length || buttons.length !== slices.length) return;

  // Five colors of viridis, which can be read in gray and with any kind of color blindness.
  const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const WORK = { c: [230, 159, 0, 170], s: [0, 114, 178, 190], r: [30, 33, 37, 190] };
  const WORDS = { c: "computed", s: "stopped early", r: "reused" };
  const VEIL = [40, 44, 52, 200];

  const el = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const shown = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));
  const ramp = (share) => {
    const x = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
    const i = Math.min(Math.floor(x), RAMP.length - 2);
    return RAMP[i].map((from, c) => Math.round(from + (RAMP[i + 1][c] - from) * (x - i)));
  };

  // One scale for the whole video, so that frames can be compared.
  const largest = {};
  for (const key of ["spatial", "temporal", "combined", "importance"]) {
    let max = 0;
    for (const slice of slices) for (const value of slice[key] || []) if (value > max) max = value;
    largest[key] = max;
  }

  const paint = (columns, rows, box, color) => {
    const canvas = el("canvas", { width: columns, height: rows, "aria-hidden": "true" });
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    for (let cell = 0; cell < columns * rows; cell++) image.data.set(color(cell) || [0, 0, 0, 0], 4 * cell);
    context.putImageData(image, 0, 0);
    const [left, top, width, height] = box.map((share) => 100 * share + "%");
    Object.assign(canvas.style, { left, top, width, height });
    return canvas;
  };

  const state = { current: -1 };

  const colors = (slice, kept, key, plain) => {
    if (key === "kept" && plain) return (token) => (kept.has(token) ? [0, 114, 178, 255] : null);
    if (key === "kept") return (token) => (kept.has(token) ? null : VEIL);
    const values = slice[key];
    const max = largest[key] || 1;
    return (token) => (values[token] === null || values[token] === undefined ? null : [...ramp(values[token] / max), 205]);
  };

  const summary = (slice, key, part) => {
    const values = slice[key].slice(part.first, part.first + part.n);
    let best = 0;
    values.forEach((value, i) => { if ((value ?? -1) > (values[best] ?? -1)) best = i; });
    const low = values.reduce((a, b) => Math.min(a, b ?? a), Infinity);
    const row = Math.floor(best / part.columns) + 1;
    return `${shown(low)} to ${shown(values[best])}, highest in row ${row}, column ${best % part.columns + 1}`;
  };

  const sources = (index) => Array.from(buttons[index].querySelectorAll("img"), (img) => img.getAttribute("src"));

  const frame = (panel, source, classes, label) => {
    const map = el("div", { class: "map " + classes + (panel.on_frame ? "" : " plain"), role: "img", "aria-label": label });
    if (panel.on_frame) map.append(el("img", { src: source, alt: "" }));
    return map;
  };

  const watch = (map, slice, kept, parts) => {
    map.addEventListener("pointermove", (event) => {
      const area = map.getBoundingClientRect();
      const x = (event.clientX - area.left) / area.width;
      const y = (event.clientY - area.top) / area.height;
      const part = parts.find(({ box: [l, t, w, h] }) => x >= l && x < l + w && y >= t && y < t + h);
      if (!part) return;
      const [left, top, width, height] = part.box;
      const column = Math.min(Math.floor(((x - left) / width) * part.columns), part.columns - 1);
      const row = Math.min(Math.floor(((y - top) / height) * part.rows), part.rows - 1);
      const token = row * part.columns + column;
      if (token >= part.n) return;
      const at = part.first + token;
      readout.textContent = `Row ${row + 1}, column ${column + 1}: spatial ${shown(slice.spatial[at])}, temporal ` +
        `${shown(slice.temporal[at])}, combined ${shown(slice.combined[at])}, ${kept.has(at) ? "kept" : "dropped"}`;
    });
  };

  const figure = (title, children, scale) => {
    const node = el("figure", {}, el("figcaption", {}, title), ...children);
    if (scale) node.append(scale);
    return node;
  };
  const rampScale = (key) => el("div", { class: "scale" }, "0", el("span", { class: "ramp" }), largest[key].toFixed(2));

  const TITLES = {
    kept: "Kept",
    spatial: "Spatial importance",
    temporal: "Temporal importance",
    combined: "Combined importance",
    importance: `Importance to the method ${data.settings.prune.method}`,
  };

  const draw = (index) => {
    const slice = slices[index];
    const kept = new Set(slice.kept);
    const images = sources(index);
    const figures = [];
    slice.panels.forEach((panel, number) => {
      const which = slice.panels.length > 1 ? ` (part ${number + 1} of ${slice.panels.length}` +
        (panel.on_frame ? ")" : "; its position in the frame is unknown)") : panel.on_frame ? "" : " (tokens without positions)";
      for (const key of ["kept", "spatial", "temporal", "combined", "importance"]) {
        if (!slice[key]) continue;
        if (key !== "kept" && !slice[key].length) {
          figures.push(figure(TITLES[key] + which, [el("p", { class: "note" }, "None: there is no previous frame to compare with.")]));
          continue;
        }
        const color = colors(slice, kept, key, !panel.on_frame);
        const inPanel = panel.parts.reduce((n, part) => n + part.n, 0);
        const keptHere = slice.kept.filter((t) => panel.parts.some((part) => t >= part.first && t < part.first + part.n)).length;
        const label = key === "kept" ? `${keptHere} of ${inPanel} tokens kept` : `${TITLES[key]}: ${summary(slice, key, panel.parts[0])}`;
        // A pair of frames has one set of tokens: the kept ones are shown on both.
        const over = key === "kept" ? images : images.slice(0, 1);
        const shots = over.map((source) => {
          const map = frame(panel, source, key === "kept" ? "" : "grey", label);
          for (const part of panel.parts) {
            map.append(paint(part.columns, part.rows, part.box, (cell) => (cell < part.n ? color(part.first + cell) : null)));
          }
          map.dataset.map = key;
          watch(map, slice, kept, panel.parts);
          return map;
        });
        figures.push(figure(TITLES[key] + which, panel.on_frame ? shots : shots.slice(0, 1), key === "kept" ? null : rampScale(key)));
      }
    });
    if (slice.cells) {
      const { columns, rows, work } = slice.cells;
      const panel = slice.panels[0];
      const count = (letter) => work.split(letter).length - 1;
      const label = Object.keys(WORDS).map((letter) => `${count(letter)} ${WORDS[letter]}`).join(", ");
      const map = frame(panel, images[0], "grey", "Vision encoder: of " + work.length + " cells " + label);
      map.append(paint(columns, rows, panel.parts[0].box, (cell) => WORK[work[cell]]));
      map.dataset.map = "encoder";
      const keys = el("div", { class: "scale" });
      for (const [letter, word] of Object.entries(WORDS)) {
        keys.append(el("span", {}, el("span", { class: "key " + { c: "computed", s: "stopped", r: "reused" }[letter] }), ` ${count(letter)} ${word}`));
      }
      figures.push(figure("Work of the vision encoder", [map], keys));
    }
    maps.replaceChildren(...figures);
    heading.textContent = buttons[index].getAttribute("aria-label");
    facts.textContent = `${(100 * slice.kept.length / slice.total).toFixed(1)} % of its tokens are kept; ` +
      (slice.cells ? `${(100 * slice.computed).toFixed(0)} % of its encoding was computed.` : "all of its encoding was computed.");
    readout.textContent = "";
    if (numbers.open) fill();
  };

  // All numbers of the selected frame, created when the details are opened.
  const fill = () => {
    const slice = slices[state.current];
    const kept = new Set(slice.kept);
    const body = el("tbody");
    for (const part of slice.panels.flatMap((panel) => panel.parts)) {
      for (let i = 0; i < part.n; i++) {
        const at = part.first + i;
        const cells = [Math.floor(i / part.columns) + 1, i % part.columns + 1, shown(slice.spatial[at]),
          shown(slice.temporal[at]), shown(slice.combined[at]), kept.has(at) ? "yes" : "no"];
        body.append(el("tr", {}, el("th", { scope: "row" }, String(at)), ...cells.map((text) => el("td", {}, String(text)))));
      }
    }
    const head = ["token", "row", "column", "spatial", "temporal", "combined", "kept"];
    const table = el("table", {}, el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))), body);
    numbers.querySelector(".wide").replaceChildren(table);
  };
  numbers.addEventListener("toggle", () => { if (numbers.open) fill(); });

  let wanted = null;
  const select = (index, focus) => {
    index = Math.min(Math.max(index, 0), buttons.length - 1);
    const before = buttons[state.current];
    if (before) {
      before.setAttribute("aria-pressed", "false");
      before.tabIndex = -1;
      dots[state.current]?.classList.remove("current");
    }
    state.current = index;
    buttons[index].setAttribute("aria-pressed", "true");
    buttons[index].tabIndex = 0;
    dots[index]?.classList.add("current");
    if (focus) buttons[index].focus({ preventScroll: true });
    buttons[index].scrollIntoView({ block: "nearest", inline: "nearest" });
    // While a key is held down, not every frame has to be drawn.
    if (wanted === null) requestAnimationFrame(() => { const next = wanted; wanted = null; draw(next); });
    wanted = index;
  };

  const strip = document.getElementById("strip");
  strip.addEventListener("click", (event) => {
    const button = event.target.closest(".slice");
    if (button) select(Number(button.dataset.slice), false);
  });
  const STEPS = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
  strip.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (step === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    select(state.current + step, true);
  });
  dots.forEach((dot, index) => {
    dot.classList.add("dot");
    dot.addEventListener("click", () => select(index, false));
  });
  // A printed page has all frames.
  addEventListener("beforeprint", () => document.querySelectorAll("img").forEach((img) => { img.loading = "eager"; }));

  // Frames out of view take as much space as visible ones.
  strip.style.setProperty("--height", buttons[0].offsetHeight + "px");
  document.getElementById("frame").hidden = false;
  select(0, false);
  scrollTo(0, 0);
})();
