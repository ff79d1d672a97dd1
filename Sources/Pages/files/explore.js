// SPDX-License-Identifier: MIT
// Harder questions: what turning, shifting and noise do to the answer, and what the network looks for.
const explore = (() => {
  const names = ["turn", "shift-x", "shift-y", "noise"], still = matchMedia("(prefers-reduced-motion: reduce)");
  let origin = null, changed = null, seed = 1, forming = false;
  const need = () => { if (!origin) throw refusal("Draw something first, or take a test digit."); };
  const needShares = () => { if (!machine.has_probabilities) throw refusal("This network gives no probabilities: this needs a last layer with softmax."); };
  const setting = () => Object.fromEntries(names.map((name) => [name, +$(name).value]));
  // The same seed gives the same noise.
  function random(state) {
    const next = () => {
      let t = (state = (state + 0x6d2b79f5) | 0);
      t = Math.imul(t ^ (t >>> 15), t | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    return () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  }
  // Turned about its middle, then shifted; between pixels by bilinear interpolation, 0 from outside.
  function change(values, { turn, "shift-x": right, "shift-y": down, noise }) {
    const [h, w, c] = machine.input, a = (turn * Math.PI) / 180, cos = Math.cos(a), sin = Math.sin(a), normal = random(seed), result = new Float32Array(values.length);
    const at = (y, x, k) => (y >= 0 && x >= 0 && y < h && x < w ? values[(y * w + x) * c + k] : 0);
    for (let y = 0; y < h; y++)
      for (let x = 0; x < w; x++) {
        const dy = y - down - (h - 1) / 2, dx = x - right - (w - 1) / 2, fy = cos * dy - sin * dx + (h - 1) / 2, fx = sin * dy + cos * dx + (w - 1) / 2, i = Math.floor(fy), j = Math.floor(fx), v = fy - i, u = fx - j;
        for (let k = 0; k < c; k++) {
          const sum = (1 - v) * ((1 - u) * at(i, j, k) + u * at(i, j + 1, k)) + v * ((1 - u) * at(i + 1, j, k) + u * at(i + 1, j + 1, k));
          result[(y * w + x) * c + k] = noise ? Math.max(0, Math.min(1, sum + noise * normal())) : sum;
        }
      }
    return result;
  }
  function told() {
    const s = setting();
    $("turn-now").textContent = `${s.turn}°`;
    $("noise-now").textContent = short(s.noise);
    for (const name of ["shift-x", "shift-y"]) $(`${name}-now`).textContent = `${s[name]} px`;
  }
  async function show(values) {
    changed = source = { values };
    // What it should be stays what it was, so that the loss is comparable.
    if (origin.label != null) Object.assign(wish, { label: origin.label, isChosen: true });
    paint(values);
    await look();
  }
  async function apply() {
    need();
    told();
    await show(change(origin.values, setting()));
  }
  function zero() {
    for (const name of names) $(name).value = 0;
    told();
  }
  async function reset() {
    need();
    zero();
    await show(origin.values);
  }
  async function curve(name, from, to, steps) {
    need();
    needShares();
    const start = origin, base = setting(), rows = [];
    for (let i = 0; i <= steps; i++) {
      const value = from + ((to - from) * i) / steps, { probabilities } = await ask("look", { input: { values: change(start.values, { ...base, [name]: value }) }, kernels, paths: false });
      if (origin !== start) return;
      rows.push([value, [...probabilities]]);
    }
    const guess = (shares) => shares.indexOf(Math.max(...shares)), middle = guess(rows.reduce((a, b) => (Math.abs(b[0]) < Math.abs(a[0]) ? b : a))[1]);
    const other = rows.filter((row) => guess(row[1]) !== middle).sort((a, b) => Math.abs(a[0]) - Math.abs(b[0]))[0], unit = name === "turn" ? "degrees" : "of noise";
    const shown = machine.classes.map((_, k) => k).filter((k) => rows.some((row) => row[1][k] >= 0.05));
    chart($("curve"), shown.map((k, i) => ({ name: machine.classes[k], colour: lineColours[k % 10], dash: ["none", "6 3", "2 3"][i % 3], points: rows.map((row) => [row[0], row[1][k]]) })), { x: name === "turn" ? "degrees" : "noise", y: "share", yText: (v) => percent(v, 0), mark: base[name] });
    $("curve-note").textContent = `${other ? `At ${short(other[0])} ${unit} it takes the ${machine.classes[middle]} for a ${machine.classes[guess(other[1])]}.` : `It takes it for a ${machine.classes[middle]} all along.`} ${shown.length} of ${machine.classes.length} classes shown: those that come to 5 % somewhere.`;
  }
  // The slope of the runner-up's loss: near certainty it is that of the two classes' difference, so it doesn't vanish as the guess's own does.
  async function saliency() {
    need();
    needShares();
    const asked = seen, order = [...asked.probabilities.keys()].sort((a, b) => asked.probabilities[b] - asked.probabilities[a]), [best, second] = order;
    const slope = floats((await ask("gradients", { input: { values: asked.values }, label: second, kernels })).input), [h, w, c] = machine.input;
    if (seen !== asked) return;
    const size = Array.from({ length: h * w }, (_, i) => Math.max(...slope.subarray(i * c, (i + 1) * c).map(Math.abs))), most = Math.max(...size, 1e-30), zoom = Math.max(1, Math.floor(168 / Math.max(h, w)));
    drawTiles($("saliency"), { height: h, width: w, channels: 1, zoom, gap: 0, columns: 1, rows: 1 }, (y, x) => size[y * w + x] / most);
    $("saliency").hidden = false;
    $("saliency-note").textContent = `The stronger a pixel's colour, the more a small change of it would move the answer between ${machine.classes[best]}, its guess, and ${machine.classes[second]}, the next in line.`;
  }
  // Gradient ascent from grey: a step of equal size each time, a little less of everything, and now and then a blur, or only noise would come.
  async function ideal(k) {
    needShares();
    if (forming) return;
    forming = true;
    $("ideal-start").disabled = true; $("ideal-stop").disabled = false;
    try {
      const size = machine.input, [h, w, c] = size, normal = random(1);
      let x = Float32Array.from({ length: h * w * c }, () => Math.max(0, 0.1 + 0.02 * normal()));
      const draw = () => { grey($("ideal"), h, w, c, (i) => 255 * x[i]); $("ideal").hidden = false; };
      for (let step = 1; step <= 80 && forming && machine.input.join() === size.join(); step++) {
        const { loss, input } = await ask("gradients", { input: { values: x }, label: k, kernels }), g = floats(input), root = Math.sqrt(g.reduce((sum, v) => sum + v * v, 0) / g.length);
        if (!(root > 0)) break;
        x = x.map((v, i) => Math.max(0, Math.min(1, 0.99 * v - (0.05 * g[i]) / root)));
        if (step % 3 === 0 && step < 75) x = x.map((v, i) => { const y = Math.floor(i / (w * c)), j = Math.floor(i / c) % w; let sum = 4 * v; for (const [on, by] of [[y > 0, -w * c], [y < h - 1, w * c], [j > 0, -c], [j < w - 1, c]]) sum += on ? x[i + by] : 0; return sum / 8; });
        if (!still.matches) { draw(); $("ideal-note").textContent = `step ${step}, share ${percent(Math.exp(-loss))}`; }
      }
      const { probabilities } = await ask("look", { input: { values: x }, kernels, paths: false }), guess = probabilities.indexOf(Math.max(...probabilities));
      draw();
      $("ideal-note").textContent = `The network takes this for a ${machine.classes[guess]}: ${percent(probabilities[guess])}${guess === k ? "" : `, and for a ${machine.classes[k]} only ${percent(probabilities[k])}`}.`;
    } finally {
      forming = false;
      $("ideal-start").disabled = false; $("ideal-stop").disabled = true;
    }
  }
  // How far the guess's share falls where a grey square covers the image, in steps of a few pixels.
  async function cover() {
    need();
    needShares();
    const asked = seen, [h, w, c] = machine.input, side = Math.max(1, Math.round(Math.min(h, w) / 5)), step = Math.max(1, Math.round(Math.max(h, w) / 14));
    const best = asked.probabilities.indexOf(Math.max(...asked.probabilities)), before = asked.probabilities[best], high = Math.ceil(h / step), wide = Math.ceil(w / step), falls = [];
    $("cover-start").disabled = true;
    try {
      for (let i = 0; i < high * wide; i++) {
        const top = Math.floor(i / wide) * step + (step - side) / 2, left = (i % wide) * step + (step - side) / 2;
        const values = asked.values.map((v, at) => {
          const y = Math.floor(at / (w * c)), x = Math.floor(at / c) % w;
          return y >= top && y < top + side && x >= left && x < left + side ? 0.5 : v;
        });
        falls.push(before - (await ask("look", { input: { values }, kernels, paths: false })).probabilities[best]);
        if (seen !== asked) return;
        if (i % 14 === 13) $("cover-note").textContent = `${i + 1} of ${high * wide} places`;
      }
    } finally { $("cover-start").disabled = false; if (seen !== asked) $("cover-note").textContent = ""; }
    const most = Math.max(...falls), largest = Math.max(...falls.map(Math.abs), 1e-30);
    drawTiles($("cover"), { height: high, width: wide, channels: 1, zoom: Math.max(2, Math.floor(168 / Math.max(high, wide))), gap: 0, columns: 1, rows: 1 }, (y, x) => falls[y * wide + x] / largest);
    $("cover").hidden = false;
    $("cover-note").textContent = `${high} × ${wide} places of a square of ${side} × ${side} pixels. Orange: covered there, the share of ${machine.classes[best]} falls, from ${percent(before)} to ${percent(before - most)} at worst. Blue: it rises.`;
    return falls;
  }

  // MARK: A map of the test images: the last hidden layer's values in two dimensions
  // What a worker does: the two directions in which the values differ most (principal components, by
  // power iteration), then, from there, t-SNE (van der Maaten & Hinton 2008) with all pairs.
  function mapping() {
    onmessage = ({ data: { x, n, d, by } }) => {
      const mean = new Float64Array(d);
      for (let i = 0; i < n; i++) for (let j = 0; j < d; j++) mean[j] += x[i * d + j] / n;
      const axes = [];
      for (let a = 0; a < 2; a++) {
        let v = Float64Array.from({ length: d }, (_, j) => Math.sin(1 + j * (a + 1)));
        for (let round = 0; round < 300; round++) {
          const next = new Float64Array(d);
          for (let i = 0; i < n; i++) {
            let sum = 0;
            for (let j = 0; j < d; j++) sum += (x[i * d + j] - mean[j]) * v[j];
            for (let j = 0; j < d; j++) next[j] += sum * (x[i * d + j] - mean[j]);
          }
          for (const other of axes) {
            const along = next.reduce((sum, value, j) => sum + value * other[j], 0);
            next.forEach((value, j) => { next[j] = value - along * other[j]; });
          }
          const size = Math.sqrt(next.reduce((sum, value) => sum + value * value, 0)) || 1;
          let moved = 0;
          next.forEach((value, j) => { next[j] = value / size; moved += Math.abs(next[j] - v[j]); });
          v = next;
          if (moved < 1e-9) break;
        }
        axes.push(v);
      }
      const y = new Float64Array(2 * n);
      for (let i = 0; i < n; i++) axes.forEach((axis, a) => { for (let j = 0; j < d; j++) y[2 * i + a] += (x[i * d + j] - mean[j]) * axis[j]; });
      postMessage({ y, mean, axes, isDone: by === "pca" });
      if (by === "pca") return;
      // How near each is to each other, so that everyone has some 20 neighbours.
      const p = new Float64Array(n * n), row = new Float64Array(n), wanted = Math.log(Math.min(20, (n - 1) / 3));
      for (let i = 0; i < n; i++) {
        for (let k = 0; k < n; k++) { let sum = 0; for (let j = 0; j < d; j++) sum += (x[i * d + j] - x[k * d + j]) ** 2; row[k] = sum; }
        let [beta, low, high] = [1 / (row.reduce((a, b) => a + b, 0) / n || 1), 0, Infinity];
        for (let round = 0; round < 60; round++) {
          let [sum, weighted] = [0, 0];
          for (let k = 0; k < n; k++) { p[i * n + k] = k === i ? 0 : Math.exp(-row[k] * beta); sum += p[i * n + k]; weighted += p[i * n + k] * row[k]; }
          const entropy = Math.log(sum || 1e-300) + (beta * weighted) / (sum || 1);
          for (let k = 0; k < n; k++) p[i * n + k] /= sum || 1;
          if (Math.abs(entropy - wanted) < 1e-4) break;
          if (entropy > wanted) low = beta; else high = beta;
          beta = high === Infinity ? 2 * beta : (low + high) / 2;
        }
      }
      const spread = Math.sqrt(y.reduce((sum, value) => sum + value * value, 0) / n) || 1, at = y.map((value) => (1e-2 * value) / spread), speed = new Float64Array(2 * n), gain = new Float64Array(2 * n).fill(1), q = new Float64Array(n * n);
      for (let step = 1; step <= 400; step++) {
        let sum = 0;
        for (let i = 0; i < n; i++) for (let k = 0; k < i; k++) sum += 2 * (q[i * n + k] = q[k * n + i] = 1 / (1 + (at[2 * i] - at[2 * k]) ** 2 + (at[2 * i + 1] - at[2 * k + 1]) ** 2));
        const more = step < 100 ? 6 : 1;
        const slope = new Float64Array(2 * n);
        for (let i = 0; i < n; i++) for (let k = 0; k < n; k++) {
          if (k === i) continue;
          const pull = 4 * ((more * (p[i * n + k] + p[k * n + i])) / (2 * n) - q[i * n + k] / sum) * q[i * n + k];
          for (const a of [0, 1]) slope[2 * i + a] += pull * (at[2 * i + a] - at[2 * k + a]);
        }
        for (let i = 0; i < 2 * n; i++) {
          gain[i] = Math.max(0.01, slope[i] > 0 === speed[i] > 0 ? gain[i] * 0.8 : gain[i] + 0.2);
          speed[i] = (step < 100 ? 0.5 : 0.8) * speed[i] - Math.max(20, n / 12) * gain[i] * slope[i];
          at[i] += speed[i];
        }
        if (step % 8 === 0) postMessage({ y: at, step, isDone: step === 400 });
      }
    };
  }
  let atlas = null, worker = null, marked = 0;
  const palette = (k) => `hsl(${(k * 137) % 360} 70% ${dark ? 70 : 35}%)`;
  function stopMap() {
    worker?.terminate();
    worker = null;
    $("map-stop").disabled = true; $("map-pca").disabled = $("map-tsne").disabled = false;
  }
  async function map(by = "pca") {
    if (rows.length < 2) throw refusal("A network of one layer has no hidden one to make a map of.");
    stopMap();
    $("map-note").textContent = "The test images go through the network …";
    const { values, size, labels, guesses, of, weights } = await ask("hidden"), x = floats(values), n = labels.length;
    atlas = { by, x, n, d: size, labels, guesses, of, weights, y: null };
    marked = 0;
    worker = new Worker(URL.createObjectURL(new Blob([`(${mapping})()`], { type: "text/javascript" })));
    $("map-stop").disabled = false; $("map-pca").disabled = $("map-tsne").disabled = true;
    await new Promise((done, failed) => {
      worker.onerror = ({ message }) => { stopMap(); failed(refusal(`This browser can't compute the map${message ? `: ${message}` : ""}.`)); };
      worker.onmessage = ({ data }) => {
        Object.assign(atlas, data);
        if (!still.matches || data.isDone) drawMap();
        if (data.isDone) { stopMap(); done(); }
      };
      worker.postMessage({ x, n, d: size, by });
      $("map-stop").onclick = () => { stopMap(); drawMap(); done(); };
    });
  }
  // Where the image at hand is: by its projection, or among the five that are most like it.
  function mine() {
    const h = seen?.maps.at(-2), { x, n, d, y, by, mean, axes } = atlas;
    // New weights put it elsewhere than the map's.
    if (!h || h.length !== d || atlas.weights !== seen.weights) return null;
    if (by === "pca") return axes.map((axis) => axis.reduce((sum, value, j) => sum + value * (h[j] - mean[j]), 0));
    const near = Array.from({ length: n }, (_, i) => { let sum = 0; for (let j = 0; j < d; j++) sum += (x[i * d + j] - h[j]) ** 2; return [sum, i]; }).sort((a, b) => a[0] - b[0]).slice(0, 5);
    const all = near.reduce((sum, [far]) => sum + 1 / (far + 1e-9), 0);
    return [0, 1].map((a) => near.reduce((sum, [far, i]) => sum + y[2 * i + a] / (far + 1e-9) / all, 0));
  }
  function drawMap() {
    if (!atlas?.y) return;
    const canvas = $("map"), side = Math.max(200, Math.min(520, $("explore").clientWidth - 40)), long = machine.classes.some((name) => name.length > 2), { y, n, labels, guesses } = atlas, own = mine();
    canvas.hidden = false;
    const context = resize(canvas, side, side), ends = [0, 1].map((a) => { let [low, high] = [Infinity, -Infinity]; for (let i = 0; i < n; i++) { low = Math.min(low, y[2 * i + a]); high = Math.max(high, y[2 * i + a]); } return [low, high - low || 1]; });
    const place = ([u, v]) => [14 + ((u - ends[0][0]) / ends[0][1]) * (side - 28), 14 + ((v - ends[1][0]) / ends[1][1]) * (side - 28)].map((c) => Math.max(6, Math.min(side - 6, c)));
    atlas.places = Array.from({ length: n }, (_, i) => place([y[2 * i], y[2 * i + 1]]));
    Object.assign(context, { font: "12px sans-serif", textAlign: "center", textBaseline: "middle", lineWidth: 1.5 });
    atlas.places.forEach(([a, b], i) => {
      context.fillStyle = context.strokeStyle = palette(labels[i]);
      context.fillText(long ? labels[i] : machine.classes[labels[i]] ?? labels[i], a, b);
      if (guesses[i] !== labels[i]) { context.beginPath(); context.arc(a, b, 8, 0, 7); context.stroke(); }
    });
    context.strokeStyle = dark ? "#fff" : "#000";
    if (document.activeElement === canvas) context.strokeRect(atlas.places[marked][0] - 10, atlas.places[marked][1] - 10, 20, 20);
    if (own) {
      const [a, b] = place(own);
      context.lineWidth = 3;
      context.beginPath(); context.moveTo(a - 11, b); context.lineTo(a + 11, b); context.moveTo(a, b - 11); context.lineTo(a, b + 11); context.stroke();
      atlas.own = [a, b];
    }
    const wrong = guesses.filter((guess, i) => guess !== labels[i]).length, stale = seen && atlas.weights !== seen.weights;
    $("map-note").textContent = `${stale ? "The network has changed since: make the map again. " : ""}${grouped(n)} of ${grouped(atlas.of)} test images by what layer ${rows.length - 1} makes of them, ${atlas.by === "pca" ? "along the two directions in which they differ most" : `neighbours beside neighbours (t-SNE${atlas.isDone ? "" : `, step ${atlas.step ?? 0} of 400`})`}. A ring: taken for something else (${wrong}). The cross: the image above${atlas.by === "pca" ? "" : ", among the five that are most like it"}.${long ? ` The numbers: ${machine.classes.map((name, k) => `${k} ${name}`).join(", ")}.` : ""}`;
  }
  const tellOf = (i) => { $("map-at").textContent = `Test image ${i}: a ${machine.classes[atlas.labels[i]] ?? atlas.labels[i]}${atlas.guesses[i] === atlas.labels[i] ? "" : `, taken for a ${machine.classes[atlas.guesses[i]]}`}. Enter or a click loads it.`; };
  const nearestPlace = (event) => {
    if (!atlas?.places) return -1;
    const box = $("map").getBoundingClientRect(), scale = $("map").width / box.width, [a, b] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const [far, i] = atlas.places.reduce((best, [u, v], i) => { const far = (u - a) ** 2 + (v - b) ** 2; return far < best[0] ? [far, i] : best; }, [Infinity, -1]);
    return far < 400 ? i : -1;
  };
  const open = (i) => { $("number").value = i; tell(load({ test: i })); };
  $("map").addEventListener("pointermove", (event) => { const i = nearestPlace(event); if (i >= 0) tellOf(i); });
  $("map").addEventListener("click", (event) => { const i = nearestPlace(event); if (i >= 0) { marked = i; open(i); } });
  $("map").addEventListener("keydown", (event) => {
    if (!atlas?.places) return;
    if (event.key === "Enter") return open(marked);
    const [du, dv] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    if (du == null) return;
    event.preventDefault();
    // The nearest one on that side.
    const [u, v] = atlas.places[marked];
    const [, to] = atlas.places.reduce((best, [a, b], i) => { const along = (a - u) * du + (b - v) * dv, off = Math.abs((a - u) * dv) + Math.abs((b - v) * du); return along > 0.5 && off <= along && along + off < best[0] ? [along + off, i] : best; }, [Infinity, marked]);
    marked = to;
    tellOf(marked);
    drawMap();
  });
  for (const name of ["focus", "blur"]) $("map").addEventListener(name, drawMap);
  redraws.add(drawMap);
  new ResizeObserver(drawMap).observe($("explore"));
  for (const by of ["pca", "tsne"]) $(`map-${by}`).addEventListener("click", () => tell(map(by)));

  for (const name of names) $(name).addEventListener("input", () => tell(apply()));
  $("noise-again").addEventListener("click", () => { seed++; tell(apply()); });
  $("explore-reset").addEventListener("click", () => tell(reset()));
  $("turn-curve").addEventListener("click", () => tell(curve("turn", -90, 90, 24)));
  $("noise-curve").addEventListener("click", () => tell(curve("noise", 0, 1, 20)));
  $("cover-start").addEventListener("click", () => tell(cover()));
  $("saliency-start").addEventListener("click", () => tell(saliency()));
  $("ideal-start").addEventListener("click", () => tell(ideal(+$("ideal-class").value)));
  $("ideal-stop").addEventListener("click", () => { forming = false; });
  function empty() {
    $("saliency").hidden = $("cover").hidden = true;
    for (const id of ["saliency-note", "curve-note", "cover-note"]) $(id).textContent = "";
    charts.delete($("curve"));
    $("curve").replaceChildren();
  }
  views.push({
    built() {
      $("explore").hidden = false;
      origin = null; forming = false;
      $("ideal").hidden = true;
      $("ideal-note").textContent = $("map-note").textContent = $("map-at").textContent = "";
      stopMap();
      atlas = null;
      $("map").hidden = true;
      $("ideal-class").replaceChildren(...machine.classes.map((name, k) => make("option", { value: k }, name)));
      zero(); empty();
    },
    looked(isNew) {
      if (atlas?.y && isNew) drawMap();
      if (source !== changed || !origin) {
        origin = { values: seen.values, label: seen.label };
        zero(); empty();
      } else {
        if (names.some((name) => +$(name).value)) $("fit").textContent = "What the network sees: the image as it was changed under Harder questions.";
        if (!isNew) return;
        $("saliency").hidden = $("cover").hidden = true;
        $("saliency-note").textContent = $("cover-note").textContent = "";
      }
    },
    blank() { origin = changed = null; zero(); empty(); },
  });
  return { turn(degrees) { $("turn").value = degrees; return apply(); }, saliency, cover, ideal, map, atlas: () => atlas, reset };
})();
