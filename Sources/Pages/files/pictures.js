"use strict";
// How numbers become pictures: base64 to arrays, arrays to pixels, lines and bars.
const $ = (id) => document.getElementById(id);
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
};
// From base64, unless they are there already.
const bytes = (data) => (typeof data === "string" ? Uint8Array.from(atob(data), (c) => c.charCodeAt(0)) : data);
const floats = (data) => (typeof data === "string" ? new Float32Array(bytes(data).buffer) : data);
const base64 = (array) => {
  const data = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let text = "";
  for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
  return btoa(text);
};
const percent = (share, places = 1) => `${(100 * share).toFixed(places)} %`;
const grouped = (number) => Math.round(number).toString().replace(/\B(?=(\d{3})+(?!\d))/g, ",");
const short = (value) => {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e-3 && size < 1e5) return String(+value.toPrecision(size < 1 ? 3 : 4));
  return value.toExponential(1);
};
const microseconds = (seconds) =>
  seconds < 1e-3 ? `${(seconds * 1e6).toFixed(seconds < 1e-5 ? 1 : 0)} µs` : `${(seconds * 1e3).toFixed(2)} ms`;
const letters = (index) => String.fromCharCode(65 + index % 26);

// MARK: Colours. Blue is below 0, orange above; both differ in lightness too.
let dark = matchMedia("(prefers-color-scheme: dark)").matches;
const ramps = {
  light: { above: [[241, 237, 229], [253, 186, 116], [194, 65, 12], [67, 20, 7]], below: [[241, 237, 229], [147, 197, 253], [29, 95, 208], [15, 30, 90]] },
  dark: { above: [[41, 38, 33], [124, 45, 18], [251, 139, 60], [255, 247, 237]], below: [[41, 38, 33], [30, 58, 138], [96, 165, 250], [239, 246, 255]] },
};
function tables() {
  const fill = (stops) => {
    const table = new Uint8ClampedArray(256 * 3);
    for (let i = 0; i < 256; i++) {
      const place = (i / 255) * (stops.length - 1), k = Math.min(stops.length - 2, Math.floor(place));
      for (let c = 0; c < 3; c++) table[3 * i + c] = stops[k][c] + (place - k) * (stops[k + 1][c] - stops[k][c]);
    }
    return table;
  };
  const ramp = dark ? ramps.dark : ramps.light, above = fill(ramp.above), below = fill(ramp.below);
  // The same from -255 to 255 as whole pixels, each 4 bytes at once.
  const pixels = new Uint8ClampedArray(511 * 4).fill(255);
  for (let i = 0; i < 511; i++) pixels.set((i < 255 ? below : above).subarray(3 * Math.abs(i - 255), 3 * Math.abs(i - 255) + 3), 4 * i);
  return { above, below, pixels: new Uint32Array(pixels.buffer) };
}
let colours = tables();
const redraws = new Set();
function shade(isDark) {
  dark = isDark;
  colours = tables();
  for (const redraw of redraws) redraw();
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => shade(event.matches));
// Paper is white.
addEventListener("beforeprint", () => shade(false));
addEventListener("afterprint", () => shade(matchMedia("(prefers-color-scheme: dark)").matches));

// One picture in shades of grey, light ink on black.
function grey(canvas, height, width, channels, pixel) {
  canvas.width = width; canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixel(i * channels + (channels === 3 ? c : 0));
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// Where the channels of an array lie in a picture `room` pixels wide.
function tiling(height, width, channels, room, largest = 8) {
  if (height === 1 && width === 1) {
    const cell = Math.max(6, Math.min(22, Math.floor(room / Math.min(channels, 64)) - 1));
    const columns = Math.max(1, Math.min(channels, Math.floor((room + 1) / (cell + 1))));
    return { height, width, channels, zoom: cell, gap: 1, columns, rows: Math.ceil(channels / columns) };
  }
  const gap = 3;
  let best = null;
  for (let zoom = Math.max(1, Math.min(largest, Math.floor(112 / Math.max(height, width)))); zoom >= 1; zoom--) {
    const columns = Math.max(1, Math.min(channels, Math.floor((room + gap) / (width * zoom + gap))));
    best = { height, width, channels, zoom, gap, columns, rows: Math.ceil(channels / columns) };
    if (best.rows * (height * zoom + gap) <= 190) break;
    if (height * zoom <= 30) break;
  }
  return best;
}
const tileSize = (t) => [t.rows * (t.height * t.zoom + t.gap) - t.gap, t.columns * (t.width * t.zoom + t.gap) - t.gap];
// The corner of a value's square.
const tilePlace = (t, y, x, c) => [
  Math.floor(c / t.columns) * (t.height * t.zoom + t.gap) + y * t.zoom,
  (c % t.columns) * (t.width * t.zoom + t.gap) + x * t.zoom,
];
// The value under a point of the picture; null between them.
function tileHit(t, top, left) {
  const high = t.height * t.zoom + t.gap, wide = t.width * t.zoom + t.gap;
  const row = Math.floor(top / high), column = Math.floor(left / wide);
  const y = Math.floor((top - row * high) / t.zoom), x = Math.floor((left - column * wide) / t.zoom);
  const c = row * t.columns + column;
  return y < t.height && x < t.width && column < t.columns && c < t.channels && y >= 0 && x >= 0 ? { y, x, c } : null;
}
// A canvas of a size, empty; what has that size already isn't laid out anew.
function resize(canvas, height, width) {
  const context = canvas.getContext("2d");
  if (canvas.width === width && canvas.height === height) context.clearRect(0, 0, width, height);
  else {
    canvas.width = width; canvas.height = height;
    Object.assign(canvas.style, { width: `${width}px`, height: "auto", maxWidth: "100%" });
  }
  return context;
}
// All channels side by side; value(y, x, c) in -1…1.
function drawTiles(canvas, t, value) {
  const [height, width] = tileSize(t), context = resize(canvas, height, width), image = context.createImageData(width, height);
  const { pixels } = colours, data = new Uint32Array(image.data.buffer);
  for (let c = 0; c < t.channels; c++)
    for (let y = 0; y < t.height; y++)
      for (let x = 0; x < t.width; x++) {
        const pixel = pixels[255 + Math.round(255 * Math.max(-1, Math.min(1, value(y, x, c))))], [top, left] = tilePlace(t, y, x, c);
        for (let i = 0; i < t.zoom; i++)
          for (let j = 0; j < t.zoom; j++) data[(top + i) * width + left + j] = pixel;
      }
  context.putImageData(image, 0, 0);
}
// A convolution's filters (FH, FW, C, F), or if `dense` a dense layer's weights (outputs, H, W, C): the mean
// over the channels of an image.
function drawFilters(canvas, shape, weights, room, dense) {
  const [h, w] = dense ? [shape[1], shape[2]] : [shape[0], shape[1]];
  const count = dense ? shape[0] : shape[3], depth = dense ? shape[3] : shape[2];
  const at = (y, x, f) => {
    let sum = 0;
    for (let c = 0; c < depth; c++)
      sum += dense ? weights[((f * h + y) * w + x) * depth + c] : weights[((y * w + x) * depth + c) * count + f];
    return sum / depth;
  };
  let largest = 1e-12;
  for (let f = 0; f < count; f++) for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) largest = Math.max(largest, Math.abs(at(y, x, f)));
  const zoom = Math.max(1, Math.round(36 / Math.max(h, w))), gap = 4;
  const columns = Math.max(1, Math.min(count, Math.floor((room + gap) / (w * zoom + gap))));
  drawTiles(canvas, { height: h, width: w, channels: count, zoom, gap, columns, rows: Math.ceil(count / columns) }, (y, x, f) => at(y, x, f) / largest);
}

// MARK: Of a training's moments, whose numbers are kept as bytes
// Filters or outputs as pictures, 128 for 0.
function drawPictures(canvas, [count, h, w], pixels, room) {
  const zoom = Math.max(1, Math.round(36 / Math.max(h, w))), columns = Math.max(1, Math.min(count, Math.floor((room + 4) / (w * zoom + 4))));
  drawTiles(canvas, { height: h, width: w, channels: count, zoom, gap: 4, columns, rows: Math.ceil(count / columns) }, (y, x, f) => (pixels[(f * h + y) * w + x] - 128) / 127);
}
// A layer's map from its least to its greatest value, of the image whose bytes begin at `start`; its tiles.
function drawMap(canvas, m, pixels, room, start = 0) {
  const largest = Math.max(Math.abs(m.least), Math.abs(m.greatest)) || 1, t = tiling(m.height, m.width, m.channels, room, 5);
  drawTiles(canvas, t, (y, x, c) => (m.least + (pixels[start + (y * m.width + x) * m.channels + c] / 255) * (m.greatest - m.least)) / largest);
  return t;
}
// Every so many rows and channels of a layer are in its map.
function mapText([h, w, n], m) {
  const image = h * w > 1, step = Math.max(1, Math.floor(h / m.height));
  return [image ? `${h}×${w}×${n}` : grouped(n), m.channels < n && `${grouped(m.channels)} of ${grouped(n)} ${image ? "channels" : "values"}`, step > 1 && `every ${step}th row and column`, `${short(m.least)} … ${short(m.greatest)}`].filter(Boolean).join(", ");
}
// The background of a cell of a table of what is taken for what.
const tint = (n, isRight, most) => (n === 0 ? "" : isRight ? "background:color-mix(in srgb, var(--good) 18%, transparent)" : `background:color-mix(in srgb, var(--warm) ${Math.round(10 + 38 * (n / most))}%, transparent)`);

// MARK: Charts
const svg = (tag, attributes = {}, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
function ticks(low, high, count = 5) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((k) => k * power >= raw) * power;
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) found.push(+value.toPrecision(10));
  return found;
}
// series: [{ name, colour, points: [[x, y]], dots, thin }]; options: x and y titles, log, mark
// It is as wide as its place, whose letters so stay as large as they are to be.
const charts = new Map();
const chartPlaces = new ResizeObserver((places) => {
  for (const { target } of places) if (charts.get(target)?.width !== target.clientWidth) drawChart(target);
});
function chart(place, series, options = {}) {
  charts.set(place, { series, options });
  chartPlaces.observe(place);
  drawChart(place);
}
function drawChart(place) {
  const known = charts.get(place);
  // What was taken away isn't drawn again.
  if (!known) return;
  const { series, options } = known;
  known.width = place.clientWidth;
  const W = Math.max(220, Math.min(680, place.clientWidth || 560)), H = options.height ?? 240, m = { left: 56, right: 12, top: 26, bottom: 36 };
  const all = series.flatMap((s) => s.points).filter((p) => Number.isFinite(p[1]) && (!options.logY || p[1] > 0));
  place.replaceChildren();
  if (!all.length) return;
  const logOf = (on) => (on ? Math.log10 : (v) => v);
  const fx = logOf(options.logX), fy = logOf(options.logY);
  let x0 = Math.min(...all.map((p) => fx(p[0]))), x1 = Math.max(...all.map((p) => fx(p[0])));
  let y0 = Math.min(...all.map((p) => fy(p[1]))), y1 = Math.max(...all.map((p) => fy(p[1])));
  if (!options.logY && y0 > 0 && y0 < y1 * 0.6) y0 = 0;
  if (x0 === x1) { x0 -= 0.5; x1 += 0.5; }
  if (y0 === y1) { y0 -= 0.5; y1 += 0.5; }
  if (options.logY) { y0 = Math.floor(y0 * 4) / 4; y1 = Math.ceil(y1 * 4) / 4; }
  const X = (v) => m.left + ((fx(v) - x0) / (x1 - x0)) * (W - m.left - m.right);
  const Y = (v) => H - m.bottom - ((fy(v) - y0) / (y1 - y0)) * (H - m.top - m.bottom);
  const root = svg("svg", { class: "chart", width: W, height: H, viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": options.label ?? `${options.y ?? ""} over ${options.x ?? ""}` });
  // Every power of ten, or of very many some.
  const powers = (low, high) => {
    const found = [], first = Math.ceil(low - 1e-9), step = Math.max(1, Math.ceil((Math.floor(high + 1e-9) - first + 1) / 6));
    for (let e = first; e <= high + 1e-9; e += step) found.push(10 ** e);
    return found.length > 1 ? found : [10 ** low, 10 ** high].map((v) => +v.toPrecision(2));
  };
  for (const v of options.logY ? powers(y0, y1) : ticks(y0, y1)) {
    root.append(svg("line", { class: "axis", x1: m.left, x2: W - m.right, y1: Y(v), y2: Y(v) }));
    const text = svg("text", { x: m.left - 6, y: Y(v) + 4, "text-anchor": "end" });
    text.textContent = options.yText ? options.yText(v) : short(v);
    root.append(text);
  }
  root.append(svg("line", { class: "axis base", x1: m.left, x2: W - m.right, y1: H - m.bottom, y2: H - m.bottom }));
  for (const v of options.logX ? powers(x0, x1) : ticks(x0, x1, Math.max(2, Math.min(6, Math.floor(W / 80))))) {
    root.append(svg("line", { class: "axis base", x1: X(v), x2: X(v), y1: H - m.bottom, y2: H - m.bottom + 4 }));
    const text = svg("text", { x: X(v), y: H - m.bottom + 16, "text-anchor": "middle" });
    text.textContent = grouped(v) === "0" && v ? short(v) : v >= 10000 ? `${v / 1000}k` : short(v);
    root.append(text);
  }
  for (const [text, x, y, anchor] of [[options.x, W - m.right, H - 4, "end"], [options.y, m.left - 50, 12, "start"]]) {
    if (!text) continue;
    const element = svg("text", { x, y, "text-anchor": anchor });
    element.textContent = text;
    root.append(element);
  }
  for (const s of series) {
    const points = s.points.filter((p) => Number.isFinite(p[1]) && (!options.logY || p[1] > 0));
    if (points.length > 1 && !s.only)
      root.append(svg("path", { d: "M" + points.map((p) => `${X(p[0]).toFixed(1)} ${Y(p[1]).toFixed(1)}`).join("L"), fill: "none", stroke: s.colour, "stroke-width": s.thin ? 1 : 2, "stroke-linejoin": "round", "stroke-dasharray": s.dash ?? "none" }));
    if (s.dots || s.only || points.length === 1)
      for (const p of points) {
        const dot = svg("circle", { cx: X(p[0]), cy: Y(p[1]), r: 3, fill: s.colour });
        dot.append(svg("title"));
        dot.firstChild.textContent = p[2] ?? `${s.name}: ${short(p[1])}`;
        root.append(dot);
      }
  }
  if (options.mark != null) root.append(svg("line", { x1: X(options.mark), x2: X(options.mark), y1: m.top, y2: H - m.bottom, stroke: "var(--ink)", "stroke-width": 1, "stroke-dasharray": "3 3" }));
  const legend = make("div", { class: "legend" });
  for (const s of series) if (s.name) legend.append(make("span", {}, make("i", { style: `border-top:${s.thin ? 1 : 3}px ${!s.dash || s.dash === "none" ? "solid" : s.dash.startsWith("2") ? "dotted" : "dashed"} ${s.colour}` }), s.name));
  // The nearest values under the pointer.
  const told = make("div", { class: "legend", "aria-hidden": "true", style: "min-height:20px" });
  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect(), v = ((event.clientX - box.left) / box.width) * W;
    const near = series.filter((s) => s.points.length && s.name).map((s) => {
      const p = s.points.reduce((a, b) => (Math.abs(X(b[0]) - v) < Math.abs(X(a[0]) - v) ? b : a));
      return [s, p];
    });
    if (near.length) told.textContent = `${options.x ?? ""} ${short(near[0][1][0])}: ` + near.slice(0, 6).map(([s, p]) => `${s.name} ${options.yText ? options.yText(p[1]) : short(p[1])}`).join(", ");
  });
  root.addEventListener("pointerleave", () => { told.textContent = ""; });
  place.append(legend, root, told);
}
const lineColours = ["var(--warm)", "var(--cool)", "var(--good)", "#a855f7", "#a16207", "#0891b2", "#db2777", "#65a30d", "#8b5cf6", "#64748b"];

// Outputs as bars: shares of 1 where they are probabilities, else numbers; the names are the classes'.
function bars(place, values, names, areProbabilities) {
  const best = values.indexOf(Math.max(...values));
  const whole = areProbabilities ? 1 : Math.max(...values.map(Math.abs)) || 1;
  if (place.childElementCount !== values.length)
    place.replaceChildren(...values.map((_, i) => make("div", {}, make("span", {}, names[i] ?? String(i)), make("i", {}, make("b")), make("span"))));
  values.forEach((value, i) => {
    const row = place.children[i];
    row.className = i === best ? "best" : value < 0 ? "below" : "";
    row.children[1].firstChild.style.width = `${100 * Math.abs(value) / whole}%`;
    row.children[2].textContent = areProbabilities ? percent(value) : short(value);
  });
}
