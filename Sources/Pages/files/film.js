// SPDX-License-Identifier: MIT
// A training as a film: what the network was at each moment can be played, compared with another
// run's, and saved as an animated picture.
const film = (() => {
  const runs = [], most = 8, mostBytes = 60e6, mostClasses = 12, sides = ["A", "B"], chosen = [null, null];
  const isStill = matchMedia("(prefers-reduced-motion: reduce)");
  let count = 0, gone = 0, place = 0, timer = null, wasSaved = null;

  // MARK: Runs
  const settings = [
    ["network", (s) => s.layers], ["optimiser", (s) => s.optimizer], ["rate", (s) => short(s.learning_rate)], ["batch", (s) => grouped(s.batch_size)], ["epochs", (s) => grouped(s.epochs)],
    ["kernels", (s) => s.kernels], ["augmentation", (s) => s.augment || "none"], ["seed", (s) => String(s.seed)],
  ];
  const last = (run) => run.moments.at(-1), size = (run) => run.moments.reduce((sum, m) => sum + m.bytes, 0);
  function begin(now) {
    const run = { number: ++count, settings: now.settings, moments: [], source: moments, names: machine.classes, areProbabilities: machine.has_probabilities, testImages: machine.test_images, shape: machine.input, layers: machine.layers.map(({ text, shape }) => ({ text, shape })) };
    run.buttons = chosen.map((_, i) => make("button", { "aria-pressed": "false", "aria-label": `Run ${count} as ${sides[i]}`, onclick: () => choose(i, chosen[i] === run ? null : run) }, sides[i]));
    run.cells = ["", ...settings, "", "", "", ""].map((_, i) => make("td", { class: i === 1 ? "text mono" : i < 9 ? "text" : null }));
    run.row = make("tr", {}, ...run.buttons.map((button) => make("td", {}, button)), ...run.cells);
    runs.push(run);
    // The run before stays beside the new one.
    if (!chosen[0]) chosen[0] = run;
    else chosen[1] = run;
    return run;
  }
  // Old ones go, but none that is looked at.
  function tidy() {
    while (runs.length > most || runs.reduce((sum, run) => sum + size(run), 0) > mostBytes) {
      const old = runs.find((run) => !chosen.includes(run));
      if (!old) break;
      runs.splice(runs.indexOf(old), 1);
      gone++;
    }
  }
  function note(now) {
    if (!now.settings || !moments.length) return;
    const known = runs.find((run) => run.source === moments), wasAtEnd = !known || place >= steps().length - 1, run = known ?? begin(now);
    for (const m of moments.slice(run.moments.length)) {
      const kept = { ...m, filters: bytes(m.filters), maps: m.maps.map((map) => ({ ...map, pixels: bytes(map.pixels) })) };
      if (m.input) run.pinned = floats(m.input);
      kept.bytes = kept.filters.length + 4 * m.confusion.length + kept.maps.reduce((sum, map) => sum + map.pixels.length, 0);
      run.moments.push(kept);
    }
    Object.assign(run, { points: [...points], epochs: [...epochs], seconds: now.seconds, failure: now.failure, isRunning: now.is_running });
    tidy();
    if (wasAtEnd && !timer) place = steps().length - 1;
    $("film").hidden = false;
    table();
    show();
  }
  function choose(i, run) {
    if (run && chosen[1 - i] === run) chosen[1 - i] = null;
    chosen[i] = run;
    if (!chosen.some(Boolean)) chosen[1 - i] = run ?? runs.at(-1);
    place = steps().length - 1;
    table();
    show();
  }
  function table() {
    const pair = chosen.every(Boolean), differs = settings.map(([, text]) => pair && text(chosen[0].settings) !== text(chosen[1].settings));
    const head = make("tr", {}, make("th", { colspan: 2 }, "show as"), make("th", { class: "text" }, "run"), ...settings.map(([name], i) => make("th", { class: "text" }, `${differs[i] ? "≠ " : ""}${name}`)), ...["moments", "test loss", "wrong", "seconds"].map((name) => make("th", {}, name)));
    const body = $("film-runs"), rows = runs.map((run) => run.row);
    // Rows stay where they are: one of their buttons may have the focus.
    [...body.querySelectorAll("tr")].forEach((row) => { if (!rows.includes(row)) row.remove(); });
    body.prepend(head);
    for (const row of rows) if (!row.parentNode) body.append(row);
    for (const run of runs) {
      const end = run.epochs.at(-1), part = end || last(run).images === run.testImages ? "" : ` (first ${last(run).images})`, state = run.isRunning ? "learning" : run.failure ? "failed" : run.epochs.length < run.settings.epochs ? "stopped" : "";
      const texts = [`${run.number}${state && `, ${state}`}`, ...settings.map(([, text]) => text(run.settings)), grouped(run.moments.length), `${short(end?.test_loss ?? last(run).loss)}${part}`, `${percent(end?.test_error ?? last(run).error)}${part}`, run.seconds.toFixed(1)];
      texts.forEach((text, i) => { run.cells[i].textContent = text; run.cells[i].classList.toggle("differs", Boolean(differs[i - 1] && chosen.includes(run))); });
      run.buttons.forEach((button, i) => button.setAttribute("aria-pressed", chosen[i] === run));
    }
    const same = pair && !differs.some(Boolean);
    $("film-runs-note").textContent = [pair ? (same ? "A and B have the same settings." : `A and B differ in what is marked with ≠: ${settings.filter((_, i) => differs[i]).map(([name]) => name).join(", ")}.`) : "Train once more with other settings, and both runs stand side by side: the same seed gives the same first weights for the same network.", gone && `${grouped(gone)} older run${gone > 1 ? "s were" : " was"} let go: ${most} are kept, in ${mostBytes / 1e6} MB.`].filter(Boolean).join(" ");
  }

  // MARK: A moment
  const shown = () => chosen.filter(Boolean), nameOf = (run) => (chosen.every(Boolean) ? `${sides[chosen.indexOf(run)]}: run ${run.number}` : `Run ${run.number}`);
  const steps = () => [...new Set(shown().flatMap((run) => run.moments.map((m) => m.step)))].sort((a, b) => a - b);
  // The latest that isn't after the step.
  const momentAt = (run, step) => run.moments.findLast((m) => m.step <= step) ?? run.moments[0];
  const judges = (run, m) => (m.images < run.testImages ? `the first ${grouped(m.images)} of ${grouped(run.testImages)} test images` : `all ${grouped(m.images)} test images`);
  const momentText = (run, m) => `step ${grouped(m.step)}: loss ${short(m.loss)}, ${percent(1 - m.error)} right`;
  // Of many classes those with the most mistakes at the end.
  function classesOf(run) {
    if (run.names.length <= mostClasses) return run.names.map((_, i) => i);
    const mistakes = new Map(), { confusion } = last(run);
    for (let i = 0; i < confusion.length; i += 3) if (confusion[i] !== confusion[i + 1]) for (const c of [confusion[i], confusion[i + 1]]) mistakes.set(c, (mistakes.get(c) ?? 0) + confusion[i + 2]);
    return run.names.map((_, i) => i).sort((a, b) => (mistakes.get(b) ?? 0) - (mistakes.get(a) ?? 0) || a - b).slice(0, mostClasses).sort((a, b) => a - b);
  }
  function matrixOf(m, classes) {
    const matrix = classes.map(() => classes.map(() => 0));
    for (let i = 0; i < m.confusion.length; i += 3) {
      const [y, x] = [classes.indexOf(m.confusion[i]), classes.indexOf(m.confusion[i + 1])];
      if (y >= 0 && x >= 0) matrix[y][x] = m.confusion[i + 2];
    }
    return matrix;
  }
  const likeliest = (values, number) => values.map((_, i) => i).sort((a, b) => values[b] - values[a]).slice(0, number).sort((a, b) => a - b);
  function makeSide() {
    const canvas = (label) => make("canvas", { role: "img", "aria-label": label });
    const side = { title: make("h3"), told: make("p", { class: "soft" }), weightsHead: make("h3", {}, "The first layer's weights"), weightsNote: make("p", { class: "soft" }), weights: canvas("The first layer's weights at that moment"), pinned: canvas("The pinned image"), bars: make("div", { class: "bars" }), barsNote: make("p", { class: "soft" }), maps: make("div"), matrix: make("table", { class: "matrix" }), matrixNote: make("p", { class: "soft" }) };
    Object.assign(side.pinned.style, { width: "84px", height: "84px", borderRadius: "8px", background: "#000" });
    side.element = make("div", {}, side.title, side.told, make("h3", {}, "What it takes for what"), side.matrixNote, make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "What it takes for what at that moment" }, side.matrix), side.weightsHead, side.weightsNote, side.weights, make("h3", {}, "The image that was there when it began"), make("div", { class: "seen" }, side.pinned, side.bars), side.barsNote, side.maps);
    return side;
  }
  const made = [];
  function drawSide(side, run, m) {
    const room = Math.max(200, side.element.clientWidth - 4);
    side.title.textContent = nameOf(run);
    side.told.textContent = `${momentText(run, m)} of ${judges(run, m)}.${m === last(run) && !run.isRunning ? " Its last moment." : ""}`;
    for (const part of [side.weightsHead, side.weightsNote, side.weights]) part.hidden = !m.filter_shape.length;
    if (m.filter_shape.length) {
      side.weightsNote.textContent = [m.filter_shape[0] < m.filter_count && `${grouped(m.filter_shape[0])} of ${grouped(m.filter_count)}.`, m.filter_depth > 1 && `Each is the mean over its ${m.filter_depth} channels.`].filter(Boolean).join(" ");
      drawPictures(side.weights, m.filter_shape, m.filters, room);
    }
    const [h, w, c] = run.shape;
    if (run.pinned) grey(side.pinned, h, w, c, (i) => 255 * run.pinned[i]);
    const order = run.names.length > 20 ? likeliest(m.probabilities, 10) : run.names.map((_, i) => i);
    if (run.names.length > 20) side.bars.replaceChildren();
    bars(side.bars, order.map((i) => m.probabilities[i]), order.map((i) => run.names[i]), run.areProbabilities);
    order.forEach((i, k) => { side.bars.children[k].firstChild.textContent = run.names[i]; });
    side.barsNote.textContent = order.length < run.names.length ? `The ${order.length} largest of ${grouped(run.names.length)}.` : "";
    if (side.maps.childElementCount !== m.maps.length) side.maps.replaceChildren(...m.maps.map(() => make("div", { class: "layer" }, make("div", { class: "soft" }), make("canvas", { role: "img" }))));
    m.maps.forEach((map, i) => {
      const [text, canvas] = side.maps.children[i].children;
      text.textContent = `${i + 1}  ${run.layers[i].text}: ${mapText(run.layers[i].shape, map)}`;
      canvas.setAttribute("aria-label", `Map of layer ${text.textContent}`);
      drawMap(canvas, map, map.pixels, room);
    });
    const classes = classesOf(run), matrix = matrixOf(m, classes), largest = Math.max(1, ...matrix.flatMap((row, i) => row.filter((_, j) => i !== j)));
    side.matrixNote.textContent = `Rows are labels, columns what it says: ${judges(run, m)}.${classes.length < run.names.length ? ` ${classes.length} of ${grouped(run.names.length)} classes: those with the most mistakes at the end.` : ""}`;
    side.matrix.replaceChildren(make("tr", {}, make("td"), ...classes.map((k) => make("th", { scope: "col" }, run.names[k]))),
      ...matrix.map((row, i) => make("tr", {}, make("th", { scope: "row" }, run.names[classes[i]]), ...row.map((n, j) => make("td", { class: i === j ? "right" : null, style: tint(n, i === j, largest) }, n ? String(n) : "·")))));
  }
  function show() {
    const all = shown();
    if (!all.length || $("film").hidden) return;
    const list = steps();
    place = Math.max(0, Math.min(list.length - 1, place));
    const step = list[place], text = `step ${grouped(step)}`, input = $("film-at");
    input.max = list.length - 1;
    input.value = place;
    input.setAttribute("aria-valuetext", `${text}; ${all.map((run) => `${nameOf(run)}, ${momentText(run, momentAt(run, step))}`).join("; ")}`);
    $("film-when").textContent = text;
    while (made.length < all.length) made.push(makeSide());
    const elements = made.slice(0, all.length).map((side) => side.element);
    if ($("film-sides").childElementCount !== elements.length) $("film-sides").replaceChildren(...elements);
    all.forEach((run, i) => drawSide(made[i], run, momentAt(run, step)));
    const few = Math.min(...all.map((run) => run.moments[0].images)), isPart = all.some((run) => run.moments[0].images < run.testImages);
    $("film-note").textContent = `${list.length} moments: every few steps${isPart ? ` the first ${grouped(few)} test images are judged, at the ends of epochs all of them` : " the test images are judged"}. There are at most 120 of a run, evenly spread. Of a layer with many channels some are kept; each map says how many.`;
    const style = (thin, i) => (thin || i ? ` (${[thin, i ? "dashed" : ""].filter(Boolean).join(", ")})` : "");
    for (const [id, key, y] of [["film-loss", "loss", "loss"], ["film-error", "error", "class error"]]) {
      const series = all.flatMap((run, i) => {
        const whole = run.moments.filter((m) => m.images === run.testImages), prefix = all.length > 1 ? `${sides[chosen.indexOf(run)]} ` : "", colour = all.length > 1 ? ["var(--cool)", "var(--warm)"][i] : null, pair = (m) => [m.step, m[key]], dash = i ? "5 3" : undefined;
        return [
          { name: `${prefix}training${style("thin", i)}`, colour: colour ?? "var(--cool)", points: run.points.map(pair), thin: true, dash },
          isPart && all.length < 2 && { name: `first ${grouped(few)} test images (dashed)`, colour: "var(--good)", points: run.moments.filter((m) => m.images < run.testImages).map(pair), thin: true, dash: "5 3" },
          { name: `${prefix}${whole.length ? "all" : `first ${grouped(few)}`} test images${style("", i)}`, colour: colour ?? "var(--warm)", points: (whole.length ? whole : run.moments).map(pair), dots: true, dash },
        ].filter(Boolean);
      });
      chart($(id), series, { x: "step", y, mark: step, ...(key === "loss" ? { logY: true } : { yText: (v) => percent(v, 0) }), label: `${y} of ${all.map(nameOf).join(" and ")} over the steps, with a line at ${text}` });
    }
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    button();
  }
  // Where nothing is to move by itself, each press is a moment.
  function button() {
    const [text, label] = isStill.matches ? ["▶|", "Next moment"] : timer ? ["❚❚", "Pause"] : ["▶", "Play"];
    $("film-play").textContent = text;
    $("film-play").setAttribute("aria-label", label);
  }
  function play() {
    if (timer) { stop(); return; }
    if (!shown().length) return;
    if (place >= steps().length - 1) place = -1;
    place++;
    show();
    if (isStill.matches) return;
    timer = setInterval(() => {
      if (place < steps().length - 1) place++;
      show();
      if (place >= steps().length - 1) stop();
    }, 200);
    button();
  }
  $("film-play").addEventListener("click", play);
  isStill.addEventListener("change", stop);
  button();
  $("film-at").addEventListener("input", () => { stop(); place = +$("film-at").value; show(); });

  // MARK: The file: an animated PNG
  const table32 = Uint32Array.from({ length: 256 }, (_, n) => {
    for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
    return n;
  });
  function chunk(name, ...numbers) {
    const data = numbers.flatMap((n) => (ArrayBuffer.isView(n) ? [n] : [Uint8Array.of(n >>> 24, n >>> 16, n >>> 8, n)])), length = data.reduce((sum, part) => sum + part.length, 0), result = new Uint8Array(length + 12), view = new DataView(result.buffer);
    view.setUint32(0, length);
    result.set([...name].map((c) => c.charCodeAt(0)), 4);
    let at = 8, crc = -1;
    for (const part of data) { result.set(part, at); at += part.length; }
    for (let i = 4; i < at; i++) crc = table32[(crc ^ result[i]) & 255] ^ (crc >>> 8);
    view.setUint32(at, ~crc);
    return result;
  }
  // Without alpha; each row begins with 0, the filter "none".
  async function packed({ width, height, data }) {
    const raw = new Uint8Array(height * (3 * width + 1));
    for (let y = 0, to = 0, from = 0; y < height; y++) {
      raw[to++] = 0;
      for (let x = 0; x < width; x++, from += 4) { raw[to++] = data[from]; raw[to++] = data[from + 1]; raw[to++] = data[from + 2]; }
    }
    return new Uint8Array(await new Response(new Blob([raw]).stream().pipeThrough(new CompressionStream("deflate"))).arrayBuffer());
  }
  const wide = 440, high = 600, filmed = 3;
  // One run's part of a picture, from x on.
  function paintSide(context, left, run, m) {
    const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(`--${name}`).trim(), small = make("canvas");
    const write = (text, x, y, room, font = "12px sans-serif", align = "left", fill = "ink") => { Object.assign(context, { font, textAlign: align, fillStyle: colour(fill), textBaseline: "alphabetic" }); context.fillText(text, left + x, y, room); };
    const fit = (x, y, w, h) => { const scale = Math.min(3, w / small.width, h / small.height); context.imageSmoothingEnabled = scale < 1; context.drawImage(small, left + x, y, small.width * scale, small.height * scale); };
    write(`${nameOf(run)}, ${momentText(run, m)}`, 12, 22, 416, "bold 14px sans-serif");
    write(`of ${judges(run, m)}; ${run.settings.optimizer}, rate ${short(run.settings.learning_rate)}, batch ${run.settings.batch_size}`, 12, 40, 416, "12px sans-serif", "left", "soft");
    if (m.filter_shape.length) { drawPictures(small, m.filter_shape, m.filters, 400); fit(12, 54, 196, 100); }
    if (run.pinned) { const [h, w, c] = run.shape; grey(small, h, w, c, (i) => 255 * run.pinned[i]); fit(12, 164, 64, 64); }
    const order = likeliest(m.probabilities, 10), whole = run.areProbabilities ? 1 : Math.max(1e-12, ...m.probabilities.map(Math.abs)), best = m.probabilities.indexOf(Math.max(...m.probabilities));
    order.forEach((i, k) => {
      const y = 240 + 18 * k;
      write(run.names[i], 12, y + 11, 44, i === best ? "bold 12px sans-serif" : "12px sans-serif");
      context.fillStyle = colour(i === best ? "warm" : "cool");
      context.fillRect(left + 60, y, Math.max(1, 96 * Math.abs(m.probabilities[i]) / whole), 13);
      write(run.areProbabilities ? percent(m.probabilities[i]) : short(m.probabilities[i]), 208, y + 11, 50, "12px sans-serif", "right");
    });
    const classes = classesOf(run), matrix = matrixOf(m, classes), cell = 196 / (classes.length + 1), largest = Math.max(1, ...matrix.flatMap((row, i) => row.filter((_, j) => i !== j)));
    classes.forEach((k, i) => { write(run.names[k], 232 + (i + 1.5) * cell, 54 + cell * 0.7, cell, "11px sans-serif", "center", "soft"); write(run.names[k], 232 + cell * 0.5, 54 + (i + 1.7) * cell, cell, "11px sans-serif", "center", "soft"); });
    matrix.forEach((row, i) => row.forEach((n, j) => {
      context.globalAlpha = n === 0 ? 0 : i === j ? 0.25 : 0.12 + (0.4 * n) / largest;
      context.fillStyle = colour(i === j ? "good" : "warm");
      context.fillRect(left + 232 + (j + 1) * cell, 54 + (i + 1) * cell, cell - 1, cell - 1);
      context.globalAlpha = 1;
      write(n ? String(n) : "·", 232 + (j + 1.5) * cell, 54 + (i + 1.7) * cell, cell, "11px sans-serif", "center");
    }));
    // The loss so far and what comes, its logarithm; all shown runs have the same axes.
    const losses = shown().flatMap((r) => r.moments.map((n) => Math.log(Math.max(1e-6, n.loss)))), low = Math.min(...losses), range = Math.max(...losses) - low || 1, end = Math.max(1, steps().at(-1));
    const X = (step) => left + 236 + (190 * step) / end, Y = (loss) => 410 - (130 * (Math.log(Math.max(1e-6, loss)) - low)) / range;
    const { images } = run.moments[0], curve = run.moments.filter((n) => n.images === images);
    write(images < run.testImages ? `loss on ${images} test images, dots: on all` : "loss on all test images", 236, 274, 190, "11px sans-serif", "left", "soft");
    for (const [list, alpha] of [[curve, 0.35], [curve.filter((n) => n.step <= m.step), 1]]) {
      context.beginPath();
      list.forEach((n, i) => context[i ? "lineTo" : "moveTo"](X(n.step), Y(n.loss)));
      Object.assign(context, { strokeStyle: colour("cool"), lineWidth: 2, globalAlpha: alpha });
      context.stroke();
    }
    for (const n of [...run.moments.filter((n) => n.images > images && n.step < m.step), m]) {
      context.beginPath();
      context.arc(X(n.step), Y(n.loss), n === m ? 4 : 2.5, 0, 7);
      context.fillStyle = colour("warm");
      context.fill();
    }
    pictured(m).forEach((i, k) => {
      const map = m.maps[i];
      write(`${i + 1}  ${run.layers[i].text}`, 12, 440 + 54 * k, 416, "11px sans-serif", "left", "soft");
      drawMap(small, map, map.pixels, 2000);
      fit(12, 444 + 54 * k, 416, 36);
    });
  }
  // The maps that have room: the first layers', pictures if there are any.
  function pictured(m) {
    const places = m.maps.map((_, i) => i), pictures = places.filter((i) => m.maps[i].height * m.maps[i].width > 1);
    return (pictures.length ? pictures : places).slice(0, filmed);
  }
  async function save() {
    const all = shown(), list = steps(), canvas = make("canvas", { width: wide * all.length, height: high }), context = canvas.getContext("2d", { willReadFrequently: true }), parts = [Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10)];
    parts.push(chunk("IHDR", canvas.width, high, Uint8Array.of(8, 2, 0, 0, 0)), chunk("acTL", list.length, 0));
    let number = 0;
    for (const [i, step] of list.entries()) {
      $("film-saved").textContent = `${i + 1} of ${list.length} moments …`;
      context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--card");
      context.fillRect(0, 0, canvas.width, high);
      all.forEach((run, k) => paintSide(context, wide * k, run, momentAt(run, step)));
      const data = await packed(context.getImageData(0, 0, canvas.width, high));
      // For 1/6 of a second, the last one for two; the next one takes its place whole.
      const [time, of] = i === list.length - 1 ? [2, 1] : [1, 6];
      parts.push(chunk("fcTL", number++, canvas.width, high, 0, 0, Uint8Array.of(0, time, 0, of, 0, 0)), i ? chunk("fdAT", number++, data) : chunk("IDAT", data));
    }
    parts.push(chunk("IEND"));
    if (wasSaved) URL.revokeObjectURL(wasSaved);
    const blob = new Blob(parts, { type: "image/png" });
    wasSaved = URL.createObjectURL(blob);
    const maps = all.map((run) => `${pictured(run.moments[0]).length} of ${run.moments[0].maps.length}`).join(" and ");
    $("film-saved").replaceChildren(make("a", { href: wasSaved, download: `film-${all.map((run) => run.number).join("-")}.png` }, `Save film-${all.map((run) => run.number).join("-")}.png`), ` ${(blob.size / 1e6).toFixed(1)} MB, an animated picture that browsers show: all ${list.length} moments, the maps of ${maps} layers.`);
    return wasSaved;
  }
  $("film-save").addEventListener("click", () => tell((async () => {
    $("film-save").disabled = true;
    try { await save(); } finally { $("film-save").disabled = false; }
  })()));

  redraws.add(show);
  let width = 0;
  new ResizeObserver(() => { if ($("film").clientWidth !== width) { width = $("film").clientWidth; show(); } }).observe($("film"));
  // Another network is there: what was learning isn't any more, also if its end wasn't told.
  function built() {
    for (const run of runs) if (run.source !== moments) run.isRunning = false;
    if (runs.length) table();
  }
  views.push({ trained: note, built });
  return {
    runs, play, save,
    // A share from 0 to 1 of the moments.
    at(share) { stop(); place = Math.round(share * (steps().length - 1)); show(); },
    // Two of `runs`, by their places there; null for none.
    compare(a, b = null) { choose(0, runs[a] ?? null); choose(1, b == null ? null : runs[b]); },
  };
})();
