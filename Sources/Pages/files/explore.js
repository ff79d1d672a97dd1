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
  for (const name of names) $(name).addEventListener("input", () => tell(apply()));
  $("noise-again").addEventListener("click", () => { seed++; tell(apply()); });
  $("explore-reset").addEventListener("click", () => tell(reset()));
  $("turn-curve").addEventListener("click", () => tell(curve("turn", -90, 90, 24)));
  $("noise-curve").addEventListener("click", () => tell(curve("noise", 0, 1, 20)));
  $("saliency-start").addEventListener("click", () => tell(saliency()));
  $("ideal-start").addEventListener("click", () => tell(ideal(+$("ideal-class").value)));
  $("ideal-stop").addEventListener("click", () => { forming = false; });
  function empty() {
    $("saliency").hidden = true;
    for (const id of ["saliency-note", "curve-note"]) $(id).textContent = "";
    charts.delete($("curve"));
    $("curve").replaceChildren();
  }
  views.push({
    built() {
      $("explore").hidden = false;
      origin = null; forming = false;
      $("ideal").hidden = true;
      $("ideal-note").textContent = "";
      $("ideal-class").replaceChildren(...machine.classes.map((name, k) => make("option", { value: k }, name)));
      zero(); empty();
    },
    looked(isNew) {
      if (source !== changed || !origin) {
        origin = { values: seen.values, label: seen.label };
        zero(); empty();
      } else {
        if (names.some((name) => +$(name).value)) $("fit").textContent = "What the network sees: the image as it was changed under Harder questions.";
        if (!isNew) return;
        $("saliency").hidden = true;
        $("saliency-note").textContent = "";
      }
    },
    blank() { origin = changed = null; zero(); empty(); },
  });
  return { turn(degrees) { $("turn").value = degrees; return apply(); }, saliency, ideal, reset };
})();
