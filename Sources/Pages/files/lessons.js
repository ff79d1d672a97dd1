// SPDX-License-Identifier: MIT
// Lessons that drive the page, ten steps each, and a quiz whose answers the page computes. A step puts the page into
// the state that it needs, and returns its text, with the numbers that are there, and what to outline.
const lessons = (() => {
  let lesson = null, number = 0, score = 0, turn = 0, working = 0, taken = 0, mistaken = null, aim = null, fields = null;
  // What a lesson trained: a network to go on with, or one that the next step takes back.
  let isKept = false, isTrial = false;

  // MARK: What steps are made of
  const until = async (isSo) => { for (let i = 0; i < 3000 && !isSo(); i++) await new Promise((done) => setTimeout(done, 20)); };
  const any = (count) => Math.floor(Math.random() * count), oneOf = (list) => list[any(list.length)], times = (shape) => shape.reduce((a, b) => a * b, 1);
  const first = (kind, fits = () => true) => rows.find(({ layer }) => layer.text.startsWith(`${kind}(`) && fits(layer)), last = () => rows.at(-1);
  const named = (row) => `layer ${row.index + 1}, ${row.layer.text}`, says = $("says-title").parentElement, plus = (v) => (v < 0 ? `− ${short(-v)}` : `+ ${short(v)}`);
  // A layer with windows: its sizes, those of what is below, and how many numbers a window has.
  function sizes(row) {
    const { shape: [oh, ow, f], window: [fh, fw], stride: [sh, sw], groups: [qh, qw], text } = row.layer, under = all()[row.index], [h, w, c] = under.layer.shape;
    const deep = text.startsWith("conv(") ? c / +(/groups=(\d+)/.exec(text)?.[1] ?? 1) : 1, windows = oh * ow, taps = fh * fw * deep;
    return { row, under, oh, ow, f, fh, fw, sh, sw, qh, qw, h, w, c, deep, windows, taps, work: windows * f * taps, name: named(row) };
  }
  const convs = () => rows.filter(({ layer }) => layer.text.startsWith("conv(")).map(sizes), conv = () => convs()[0], big = () => convs().reduce((a, b) => (b.work > a.work ? b : a));
  const overlap = ({ groups, text }) => times(groups) > 1 && !text.includes("dilation");
  const spotOf = ({ layer: { shape: [, w, n] } }, i) => ({ y: Math.floor(i / (w * n)), x: Math.floor(i / n) % w, c: i % n });
  const indexOfMost = (list, size = (v) => v) => list.reduce((best, v, i) => (size(v) > size(list[best]) ? i : best), 0);
  const peak = (row) => spotOf(row, indexOfMost(valuesOf(row)));
  // One of the numbers that are so, if there are any.
  const some = (row, isSo) => spotOf(row, oneOf([...valuesOf(row).keys()].filter((i) => isSo(valuesOf(row)[i], i))) ?? 0);
  const sum = (row, { y, x, c }) => ask("provenance", { input: { values: seen.values }, layer: row.index + 1, at: [y, x, c], kernels });
  const sums = () => Promise.all(machine.classes.map(async (_, c) => (await sum(last(), { y: 0, x: 0, c })).kernel));
  const sight = async (input, by = kernels) => {
    const answer = await ask("look", { input, kernels: by, paths: false });
    return { ...answer, maps: answer.layers.map(({ output }) => floats(output)), loss: -Math.log(answer.probabilities[wish.label]) };
  };
  const ranked = () => seen.probabilities.map((share, k) => ({ share, k, name: machine.classes[k] })).sort((a, b) => b.share - a.share);
  function point(element, from = element) {
    document.querySelector(".pointed")?.classList.remove("pointed");
    element?.classList.add("pointed");
    from?.scrollIntoView({ block: "start", behavior: "instant" });
  }
  // Marks a number and its window; with the box of its sum, or with both maps in sight.
  async function pick(row, spot, isShown) {
    row.cursor = spot;
    aim = isShown ? $("explain") : [row.element, all()[row.index].element];
    row.element.scrollIntoView({ block: "start", behavior: "instant" });
    await explain(row);
    $("explain").hidden = !isShown;
    return sum(row, spot);
  }
  // Where the page can show a computation number by number, it does, too.
  async function watch(row, order) {
    // (An element with that id is a variable, too.)
    if (typeof play === "undefined" || !play.show) return "";
    await play.show(row.index, order);
    aim = $("play");
    return ' Under "Watch it compute" you can see it move: press Play, or Step.';
  }
  // The film of the last training, from its first moment, or of the last two, at their ends.
  function seeFilm(isPair) {
    const count = film.runs?.length ?? 0;
    if (count < (isPair ? 2 : 1)) return "";
    film.compare(count - (isPair ? 2 : 1), isPair ? count - 1 : null);
    film.at(isPair ? 1 : 0);
    aim = $("film");
    return isPair ? ' Under "The training as a film" both are side by side.' : ' Under "The training as a film" you can see it again: press ▶.';
  }
  const output = (c) => pick(last(), { y: 0, x: 0, c }, true);
  // Test digits that are mistaken, the most certainly first.
  const wrongs = async () => (mistaken ??= await ask("wrong")), hard = async () => (await wrongs()).images[0]?.index ?? 0, unsure = async () => (await wrongs()).images.at(-1)?.index ?? 0;
  const doubtful = async () => oneOf((await wrongs()).images)?.index ?? any(machine.test_images);
  async function teach(count) {
    let answer;
    for (; count; count--, taken++) answer = await ask("step", { input: { values: seen.values }, label: wish.label, kernels, learning_rate: 0.001 });
    $("step-rate").value = 0.001;
    await stepped(answer);
  }
  const fill = (list) => { for (const [id, value] of list) $(id).value = value; };
  // Trains as the button does, waits for the end, and says what came of it.
  async function train(layers, rate, isFilmed = false, optimizer = "sgd", passes = 1) {
    const chosen = { text: layers, rate, optimizer, batch: 32, epochs: passes, augment: "" };
    fields ??= Object.keys(chosen).map((id) => [id, $(id).value]);
    fill(Object.entries(chosen));
    await ask("train", { layers, learning_rate: rate, batch_size: 32, epochs: passes, optimizer, augment: "", kernels, ...(isFilmed ? { film: { values: seen.values } } : {}) });
    isTrial = true;
    points = []; epochs = []; moments = [];
    await refresh();
    // What has diverged can't be looked at: its training says so.
    await follow().catch((error) => { if (!error.said) throw error; });
    await until(() => !polling);
    machine = await ask("state");
    aim = $("progress").parentElement;
    const { failure } = await ask("training", { since: 0 }), end = epochs.at(-1);
    return failure ?? (end ? `Mean loss: ${short(end.train_loss)}. Of the test images ${percent(1 - end.test_error)} are right.` : "It was stopped before its end.");
  }
  const tiny = () => `flatten relu(30) softmax(${machine.classes.length})`;
  // Units of a layer that are 0 for each of some test images.
  async function dead(row) {
    const count = Math.min(40, machine.test_images), alive = new Set(), units = times(row.layer.shape);
    for (let i = 0; i < count; i++) (await sight({ test: i })).maps[row.index].forEach((v, k) => { if (v > 0) alive.add(k); });
    return { count, units, dead: units - alive.size };
  }
  // Slopes of the loss for a pixel: the network's, the one without ReLU on the way back, and a measured one. At a
  // corner of ReLU or pooling there is none: of the pixels where the mistake is large, the first beside no corner.
  async function slopes() {
    const { fh, fw, sh, sw, w, c, oh, ow, f } = conv(), answer = await ask("gradients", { input: { values: seen.values }, label: wish.label, kernels }), right = floats(answer.input), up = floats(answer.layers[0]), weights = floats(machine.filters), wrong = new Float32Array(right.length);
    for (let y = 0; y < oh; y++) for (let x = 0; x < ow; x++) for (let k = 0; k < f; k++) {
      const slope = up[(y * ow + x) * f + k];
      if (slope) for (let i = 0; i < fh; i++) for (let j = 0; j < fw; j++) for (let d = 0; d < c; d++) wrong[((y * sh + i) * w + x * sw + j) * c + d] += slope * weights[((i * fw + j) * c + d) * f + k];
    }
    const step = 1 / 256, apart = (i) => Math.abs(wrong[i] - right[i]), order = [...right.keys()].sort((a, b) => apart(b) - apart(a)).slice(0, 40), middle = (await sight({ values: seen.values })).loss;
    let found;
    for (const at of order) {
      const [more, less] = await Promise.all([step, -step].map(async (by) => (await sight({ values: seen.values.map((v, i) => (i === at ? v + by : v)) })).loss)), [above, below] = [(more - middle) / step, (middle - less) / step];
      found ??= null;
      if (Math.abs(above - below) < 0.1 * Math.abs(above) && apart(at) > Math.abs(above - below)) { found = { more, less, measured: (above + below) / 2, at }; break; }
    }
    if (!found) throw refusal("no pixel was found where the loss changes evenly");
    const { y, x } = (inputRow.cursor = spotOf(inputRow, found.at));
    aim = inputRow.element;
    return { ...found, step, right: right[found.at], wrong: wrong[found.at], place: `the pixel in row ${y}, column ${x}` };
  }
  // The page's table of times, which is measured once a network.
  async function ladder() {
    if (!$("rungs").firstChild) {
      $("ladder").click();
      await until(() => !$("ladder").disabled);
    }
    const list = [...$("rungs").querySelectorAll("tr")].slice(1).map((line) => {
      const cells = [...line.cells].map((cell) => cell.textContent), [time, beside] = cells.slice(-3);
      return { name: cells[0], time, beside: beside.replace(" ×", " times"), seconds: parseFloat(time) * (time.includes("ms") ? 1e3 : 1), isBest: line.className === "best" };
    });
    return { best: list.find(({ isBest }) => isBest), ...Object.fromEntries(list.map((l) => [l.name, l])) };
  }
  // The upper left of what a layer sees, with the windows of one of its groups.
  function groupPicture({ fh, fw, sh, sw, qh, qw, oh, ow, h, w }, [gy, gx]) {
    const canvas = make("canvas", { width: 300, height: 180, role: "img", "aria-label": `Windows of the stride group of row ${gy}, column ${gx}: side by side, none over another` }), context = canvas.getContext("2d"), z = 20, line = (colour, width, ...box) => { Object.assign(context, { strokeStyle: colour, lineWidth: width }); context.strokeRect(...box.map((v) => v * z)); };
    for (let y = 0; y < Math.min(h, 9); y++) for (let x = 0; x < Math.min(w, 15); x++) line("#8888", 1, x, y, 1, 1);
    for (let y = gy; y < oh; y += qh) for (let x = gx; x < ow; x += qw) {
      const box = [x * sw + 0.1, y * sh + 0.1, fw - 0.2, fh - 0.2];
      context.fillStyle = `${groupColours[(gy * qw + gx) % groupColours.length]}55`;
      context.fillRect(...box.map((v) => v * z));
      line(groupColours[(gy * qw + gx) % groupColours.length], 2, ...box);
    }
    return canvas;
  }
  const three = ["stride_groups", "im2col", "direct"], share = (value) => percent(value, value < 0.01 ? 4 : 2);
  // Answers that read alike are one.
  const choice = (text, right, wrong, why) => ({ text, right, why, options: [...new Set([right, ...wrong])].sort(() => Math.random() - 0.5) });
  const entry = (text, right, why, within = 0) => ({ text, right, why, within });

  // MARK: The lessons: what a network must have for one, what its steps are about, the steps, the quiz
  const known = {
    convolution: { title: "What a convolution is", need: [() => first("conv"), "a convolution"], on: conv, steps: [
      () => [`You see a picture. The network sees ${grouped(times(machine.input))} numbers: ${machine.input.join(" × ")} (rows, columns, colours). 0 is black, 1 is white.`, inputRow.element],
      ({ name, fh, fw }) => `The first convolution is ${name}. It looks through a window of ${fh} × ${fw}, makes one number of what it sees, and moves on. All the numbers are a new picture: a map.`,
      async ({ row, taps }) => { const at = peak(row), { result } = await pick(row, at); return `Its largest number is ${short(result)}: row ${at.y}, column ${at.x} of map ${at.c} (we count from 0), in a small frame. It is made of the ${taps} numbers in the outlined window above.`; },
      async ({ row }) => { const { terms, others, sum, bias } = await pick(row, peak(row), true); return `Look at the box. Each number in the window is multiplied by a weight, which the layer has learned. The ${terms.length + others} products are added up: ${short(sum - bias)}.`; },
      async ({ row }) => { const { bias, sum, activation, result } = await pick(row, peak(row), true); return `Then the bias is added, ${short(bias)}, learned as well. That makes ${short(sum)}. ${activation === "relu" ? "Last comes ReLU: what is below 0 becomes 0." : `Activation: ${activation}.`} So it is ${short(result)}. Window times weights, plus bias: that is a convolution.`; },
      async ({ row, ow, sw }) => { const at = peak(row), { result } = await pick(row, { ...at, x: at.x + 1 < ow ? at.x + 1 : Math.max(0, at.x - 1) }); return `One place further, the window has moved by ${sw}. The weights are the same, only what they meet is new. Here it makes ${short(result)}.`; },
      async ({ row, oh, ow, h, fh }) => `The window stops at ${oh} × ${ow} = ${grouped(oh * ow)} places.${oh === h - fh + 1 ? ` It can't hang over the edge: of ${h} rows that leaves ${h} − ${fh} + 1 = ${oh} places down.` : ""} A map shows where the layer found what it looks for.${await watch(row, "naive")}`,
      ({ row, f, taps }) => [`One set of ${taps} weights is a filter. This layer has ${f}, so it makes ${f} maps, side by side.${row.index ? "" : " Here are the filters. Orange weights count for, blue ones against."}`, row.index ? row.element : $("filters")],
      ({ row, f, taps, h, w, c, windows }) => `All it has to learn: ${f} × ${taps} weights and ${f} biases, ${grouped(row.layer.parameters)} numbers. A weight for each input of each output would be ${grouped(h * w * c * windows * f)}. A stroke here looks like a stroke there, so all places share the weights.`,
      async () => { const next = convs()[1]; if (!next) return "The next layers go on with these maps. Now the quiz."; await pick(next.row, peak(next.row)); return `The next convolution, ${next.name}, does the same to the maps. Its windows reach through ${next.deep} maps: ${next.fh} × ${next.fw} × ${next.deep} = ${next.taps} products for each number. So strokes become corners and bows, and these digits. Now the quiz.`; },
    ], quiz: [
      async ({ row, name }) => { const at = some(row, (v) => v !== 0), { sum: total, bias, result, activation } = await sum(row, at); return choice(`In ${name}, row ${at.y}, column ${at.x}, map ${at.c}, the products add up to ${short(total - bias)}. The bias is ${short(bias)}. The activation is ${activation}. What does the layer give?`, short(result), [total - bias, total - 2 * bias, -total, (total - bias) * bias].map(short), `${short(total - bias)} ${plus(bias)} = ${short(total)}, and ${activation} makes ${short(result)} of it.`); },
      () => { const size = 2 + any(5), side = 10 + any(20), places = side - size + 1; return entry(`A window of ${size} × ${size} moves in steps of 1 over a picture of ${side} × ${side}, and may not hang over the edge. At how many places does it stop, in all?`, places ** 2, `${side} − ${size} + 1 = ${places} places down, as many across.`); },
      () => { const { row, name, f, taps } = oneOf(convs()); return entry(`In ${name}, there are ${f} filters, and a window holds ${taps} numbers. How many weights and biases does it learn?`, row.layer.parameters, `Each filter has ${taps} weights and a bias: ${f} × ${taps + 1}.`); },
    ] },

    groups: { title: "What a stride group is", need: [() => first("conv", overlap), "a convolution whose windows overlap"], on: () => sizes(first("conv", overlap)), steps: [
      [{ kernel: "naive" }, ({ name, oh, ow }) => `In ${name}, the window stops at ${oh} × ${ow} = ${grouped(oh * ow)} places. The program "naive" goes to one after the other. Could many be done at once?`],
      async ({ row, fh, fw }) => { await pick(row, { y: 0, x: 0, c: 0 }); return `Here is the first place, top left. Its window covers ${fh} × ${fw} = ${fh * fw} squares of the picture above: the outline.`; },
      async ({ row, fh, fw, sw, ow }) => { await pick(row, { y: 0, x: Math.min(1, ow - 1), c: 0 }); return `The next place, ${sw} to the right. Its window shares ${fh * Math.max(0, fw - sw)} of its ${fh * fw} squares with the first one: they overlap. To do both at once, the shared ones would be needed twice.`; },
      async ({ row, fw, sw, qw, ow }) => { await pick(row, { y: 0, x: Math.min(qw, ow - 1), c: 0 }); return qw < ow ? `${qw} places on, the window shares nothing with the first. A window is ${fw} wide, a step is ${sw}: ${fw} ÷ ${sw}, rounded up, is ${qw} steps.` : `There are only ${ow} places across, and all overlap.`; },
      [{ groups: true }, (on) => [`So leap ${on.qw} places across and ${on.qh} down, again and again. No two of these windows overlap. Such a set is a stride group. Here is its upper left corner:`, null, groupPicture(on, [0, 0])]],
      [{ groups: true }, (on) => [`The places left out are more groups. There are ${on.qh} × ${on.qw} = ${on.qh * on.qw}: each colour on the first map is one. A larger picture has more windows in a group, but not more groups.`, null, groupPicture(on, [0, Math.min(1, on.qw - 1)])]],
      [{ groups: true }, async ({ row, oh, ow, qh, qw, taps, f }) => `The first group has ${Math.ceil(oh / qh)} × ${Math.ceil(ow / qw)} = ${Math.ceil(oh / qh) * Math.ceil(ow / qw)} windows. They become the lines of a table, ${taps} numbers each. It is multiplied by the weights once: all its outputs, of all ${f} filters, in one pass.${await watch(row, "stride_groups")}`],
      [{ kernel: "stride_groups", groups: true }, ({ qh, qw, windows }) => `Now the page computes so, with "stride_groups". Read the line above the maps: ${qh * qw} passes instead of ${grouped(windows)} windows.`],
      [{ groups: true }, ({ row }) => { const one = rows.find(({ layer }) => layer.groups && times(layer.groups) === 1); return [`If a step is as large as the window, no windows overlap, and there is one group. ${one ? `So it is in ${named(one)}: one colour.` : "Most poolings are so."}`, (one ?? row).element]; }],
      async ({ row }) => { const [a, b] = await Promise.all(["naive", "stride_groups"].map((by) => sight({ values: seen.values }, by))), apart = Math.max(...a.maps[row.index].map((v, i) => Math.abs(v - b.maps[row.index][i]))); return `Is the answer the same? Computed both ways, this layer differs at most by ${short(apart)}${apart ? ": only rounding" : ""}. Remember: a stride group is a set of windows of which no two overlap, so that they can be computed in one pass. Now the quiz.`; },
    ], quiz: [
      () => { const f = 2 + any(5), s = 1 + any(3), q = Math.ceil(f / s); return entry(`A window of ${f} × ${f} moves in steps of ${s} over a large picture. How many stride groups are there?`, q * q, `${f} ÷ ${s}, rounded up, is ${q}: ${q} groups down times ${q} across.`); },
      [{ groups: true }, ({ name, oh, ow, qh, qw }) => { const [y, x] = [any(oh), any(ow)], to = any(2) ? [y % qh, x % qw] : [any(oh), any(ow)], isSame = (y - to[0]) % qh === 0 && (x - to[1]) % qw === 0; return choice(`In ${name}, is the window at row ${y}, column ${x} in the same stride group as the one at row ${to[0]}, column ${to[1]}?`, isSame ? "Yes" : "No", ["No", "Yes"], `They are ${Math.abs(y - to[0])} rows and ${Math.abs(x - to[1])} columns apart. In one group these are multiples of ${qh} and of ${qw}.`); }],
      () => { const { name, oh, ow, qh, qw } = oneOf(convs().filter(({ row }) => overlap(row.layer))), [down, across] = [Math.ceil(oh / qh), Math.ceil(ow / qw)]; return entry(`In ${name}, there are ${oh} × ${ow} places and ${qh} × ${qw} groups. How many windows are in the group of the first place, top left?`, down * across, `${oh} ÷ ${qh} and ${ow} ÷ ${qw}, rounded up: ${down} × ${across}.`); },
    ] },

    pooling: { title: "Why pooling", need: [() => first("maxpool"), "max-pooling"], on: () => sizes(first("maxpool")), steps: [
      ({ under, h, w, c }) => [`Here are ${c} maps of ${h} × ${w}: ${grouped(h * w * c)} numbers. The picture had ${grouped(times(machine.input))}. And neighbours often say nearly the same.`, under.element],
      ({ name, fh, fw, sw }) => `Pooling makes maps smaller. In ${name}, it looks at windows of ${fh} × ${fw}, in steps of ${sw}, map by map. Of each window one number goes on.`,
      async ({ row }) => { const { sum, terms } = await pick(row, peak(row), true); return `Which one? This window holds ${terms.map((t) => short(t.value)).join(", ")}. The largest, ${short(sum)}, goes on. The others are dropped.`; },
      ({ row }) => `Nothing is multiplied here, and nothing is learned: ${row.layer.parameters} weights.`,
      ({ row, h, w, c, windows }) => `What comes out: ${row.layer.shape.join(" × ")} = ${grouped(windows * c)} numbers. Before, there were ${grouped(h * w * c)}: ${short((h * w) / windows)} times as many.`,
      ({ row, h, w, windows }) => { const next = convs().find((l) => l.row.index > row.index); return next ? [`Why? First, less work. In ${next.name}, there are ${grouped(next.work)} products for one picture. Without the pooling, about ${short((h * w) / windows)} times as many.`, next.row.element] : "Why? First, less work: fewer numbers need fewer weights."; },
      ({ row, name }) => { let [view, jump] = [1, 1]; for (const { layer } of rows.slice(0, row.index + 1)) if (layer.groups) { view += (layer.window[0] - 1) * +(/dilation=(\d+)/.exec(layer.text)?.[1] ?? 1) * jump; jump *= layer.stride[0]; } return `Second, a wider view. One number of ${name} comes of ${view} rows of the picture, the next one ${jump} rows further. So the next layer's small windows see more of the digit.`; },
      async ({ row, under }) => {
        const before = all().map(valuesOf), [, w, c] = machine.input;
        await load({ values: seen.values.map((_, i) => (Math.floor(i / c) % w ? seen.values[i - c] : 0)) });
        const [a, b] = [under, row].map((r) => { const old = before[r.index + 1], now = valuesOf(r); return Math.sqrt(old.reduce((s, v, i) => s + (v - now[i]) ** 2, 0) / old.reduce((s, v) => s + v * v, 0)); });
        return `Third, it minds less where things are. I moved the picture right by one pixel. What goes into the pooling changes by ${percent(a, 0)}, what comes out by ${percent(b, 0)}${b < a ? "" : " (not less, this time)"}. A digit one pixel further is the same digit. Under "Harder questions" you can shift it further, and turn it.`;
      },
      async ({ row, fh, fw }) => { await pick(row, peak(row)); return `The price: the next layer knows that something was found in these ${fh} × ${fw} squares, but no longer where. To name a digit that will do.`; },
      async ({ row }) => { const { sum, terms } = await pick(row, peak(row), true); return `Another pooling, avgpool, takes the mean: here ${short(terms.reduce((a, t) => a + t.value, 0) / terms.length)} instead of ${short(sum)}. The largest says "it is there", the mean "how much of it". Now the quiz.`; },
    ], quiz: [
      async ({ row }) => { let list = [0]; for (let i = 0; i < 30 && !(Math.max(...list) > 1.2 * Math.min(...list)); i++) list = (await sum(row, some(row, (v) => v > 0))).terms.map((t) => t.value); const total = list.reduce((a, b) => a + b, 0); return choice(`A max-pooling's window holds ${list.map(short).join(", ")}. What goes on?`, short(Math.max(...list)), [total / list.length, total, Math.min(...list)].map(short), "The largest, as it is. No mean, no sum."); },
      () => { const half = 5 + any(20); return entry(`A map of ${2 * half} × ${2 * half} goes through a pooling with windows of 2 × 2 in steps of 2. How many numbers come out?`, half ** 2, `${half} × ${half}: one for each window, a quarter.`); },
      ({ name, h, w, c, windows }) => entry(`In ${name}, ${grouped(h * w * c)} numbers come in and ${grouped(windows * c)} go on. How many are left out?`, (h * w - windows) * c, `${grouped(h * w * c)} − ${grouped(windows * c)}.`),
    ] },

    percentage: { title: "Where the percentage comes from", need: [() => machine.has_probabilities && last().layer.text.startsWith("softmax("), "a softmax layer at its end"], digit: unsure, on: async () => { const z = await sums(), [a, b] = ranked(); return { row: last(), z, a, b, most: z[a.k], second: z[b.k], total: z.reduce((s, v) => s + Math.exp(v - z[a.k]), 0) }; }, steps: [
      ({ a }) => [`It says ${a.name}, with ${percent(a.share, 2)}. Where does that number come from? We go back step by step.`, says],
      () => [`Each class has a share. Together they are ${percent(seen.probabilities.reduce((a, b) => a + b, 0))}. The last layer, ${named(last())}, makes them: first sums, then softmax.`, says],
      async ({ a }) => { const { kernel, terms, others } = await output(a.k); return `First the sum for ${a.name}. ${terms.length + others} numbers come from the layer before. Each is multiplied by a weight; the products and a bias add up to ${short(kernel)}. No percentage yet: it could be any number.`; },
      async ({ a, b, most, second }) => { await output(b.k); return `Each class has its own weights, so its own sum. For ${b.name}, which came second, it is ${short(second)}. For ${a.name} it was ${short(most)}.`; },
      async ({ a, most }) => { await output(a.k); $("explain").scrollTop = 1e4; $("explain-body").querySelectorAll("h3")[0]?.scrollIntoView({ block: "nearest" }); return `Now softmax. It takes the largest sum, ${short(most)}, from each. So the first has 0, all others less. The table in the box has a line for each class.`; },
      async ({ b, most, second }) => { await output(b.k); return `Then the exponential: e, which is 2.718…, to that power. It is never below 0. The first has e⁰ = 1. For ${b.name} it is e to the power of ${short(second)} ${plus(-most)} = ${short(second - most)}: ${short(Math.exp(second - most))}.`; },
      async ({ a, b, most, second, total }) => { await output(a.k); return `Last, each is divided by the sum of all, ${total.toPrecision(5)}. For ${a.name}: 1 ÷ ${total.toPrecision(5)} = ${percent(1 / total, 2)}. For ${b.name}: ${short(Math.exp(second - most))} ÷ ${total.toPrecision(5)} = ${share(b.share)}. That is where a percentage comes from: sums, exponentials, a division.`; },
      async ({ a, b, most, second }) => { await explore.saliency(); return [`Only the lead counts. Here ${a.name} leads ${b.name} by ${short(most - second)}; its share is e to that power, ${short(Math.exp(most - second))}, times as large. All other layers only prepare these sums. Which pixels does the lead hang on? Those with a strong colour, here.`, $("saliency")]; },
      [{ digit: hard }, ({ a }) => [a.k === seen.label ? "A share is not a promise, though this network is right about all the test digits here." : `A share is not a promise. Test digit ${source.test} is labelled ${machine.classes[seen.label]}. The network says ${a.name}, with ${percent(a.share)}: it can be sure and wrong.`, says]],
      async () => { const { count, of } = await wrongs(); return [`How often it is right is another percentage, of many pictures. One counts: ${grouped(of - count)} of ${grouped(of)} test digits, from which it hasn't learned, are ${percent(1 - count / of, 2)}. Now the quiz.`, $("list").parentElement]; },
    ], quiz: [
      [{ digit: doubtful }, ({ z, b, most, second, total }) => { const e = Math.exp(second - most); return choice(`For class ${b.name} the exponential is ${short(e)}. All ${z.length} add up to ${total.toPrecision(5)}. What is its share?`, share(e / total), [e / total / 10, Math.sqrt(e / total), 1 - e / total, 1 / z.length].map(share), `${short(e)} ÷ ${total.toPrecision(5)} = ${share(e / total)}.`); }],
      ({ z }) => { const few = [...z.keys()].sort(() => Math.random() - 0.5).slice(0, 3), best = few[indexOfMost(few, (k) => z[k])]; return choice(`These are sums: ${few.map((k) => `${machine.classes[k]}: ${z[k].toFixed(2)}`).join("; ")}. Which of the three has the largest share?`, machine.classes[best], few.map((k) => machine.classes[k]), "The largest sum has the largest share; softmax keeps the order. −1 is more than −5."); },
      [{ digit: doubtful }, ({ a }) => { const others = (100 - 100 * a.share).toFixed(2); return entry(`The share of ${a.name} is ${percent(a.share, 2)}. How many percent have all other classes together?`, +others, `Together they are 100 %: 100 − ${(100 * a.share).toFixed(2)} = ${others}.`, 0.011); }],
    ] },

    learning: { title: "How it learns", need: [() => machine.has_probabilities, "probabilities"], digit: hard, wants: true, on: () => ({ row: last(), wanted: machine.classes[wish.label], share: seen.probabilities[wish.label], before: seen.loss, slope: seen.gradients?.[0] }), steps: [
      ({ wanted }) => { const [a] = ranked(); return [`Test digit ${source.test}. The network says ${a.name}, with ${percent(a.share)}. Say we want ${wanted}. To learn that, it changes its ${grouped(machine.parameters)} weights and biases, each a little.`, says]; },
      ({ wanted, share }) => [`First, how wrong is it? The share of ${wanted} is ${percent(share, 2)}. The loss is minus the logarithm of that: ${short(seen.loss)}.`, $("loss-now")],
      () => [`A share of 100 % has a loss of 0, 50 % of ${short(Math.log(2))}, 10 % of ${short(Math.log(10))}, 1 % of ${short(Math.log(100))}. Learning means: make the loss smaller.`, $("loss-now")],
      [{ slopes: true }, () => ["Now the maps show slopes: how fast the loss grows if a number grows. Orange: more of it, more loss. Blue: more of it, less loss.", inputRow.element]],
      [{ slopes: true }, ({ share }) => [`The last layer's slopes are easy. For the wanted class its share less 1: ${share.toFixed(3)} − 1 = ${(share - 1).toFixed(3)}. For the others their shares. From there slopes are computed back, layer by layer: backpropagation.`, last().element]],
      [{ slopes: true }, async ({ before, slope }) => { const at = indexOfMost(slope, Math.abs), by = 0.01, { loss } = await sight({ values: seen.values.map((v, i) => (i === at ? v + by : v)) }), { y, x } = (inputRow.cursor = spotOf(inputRow, at)); return [`True? Try it! I made the pixel in row ${y}, column ${x} larger by ${by}. The loss went from ${before.toFixed(5)} to ${loss.toFixed(5)}: ${short((loss - before) / by)} for each 1. The slope says ${short(slope[at])}.`, inputRow.element]; }],
      () => ["Weights have slopes, too. A step moves each weight against its slope, as uphill is worse: new weight = weight − rate × slope. The rate says how far; here 0.001.", $("backwards")],
      async ({ before }) => { await teach(1); return [`One step is done. The loss was ${short(before)} and is ${short(seen.loss)} now. All maps have changed a little, too.`, $("loss-now")]; },
      async ({ before, wanted }) => { await teach(10); return [`Ten steps: from ${short(before)} to ${short(seen.loss)}. Now ${wanted} has ${percent(seen.probabilities[wish.label])}. But learning one digit by heart may spoil others. So one learns from many.`, $("loss-now")]; },
      async () => { const k = machine.classes.length; return `Training takes the mean slope of 32 pictures, steps, and takes the next 32. I did so with a new, small network, once through all pictures. At first each class has about 1/${k}, a loss of ${short(Math.log(k))}. Then: ${await train(`flatten softmax(${k})`, 0.1, true)}${seeFilm()} Now the quiz.`; },
    ], quiz: [
      [{ digit: doubtful }, ({ wanted, share }) => choice(`The wanted class, ${wanted}, has a share of ${share.toPrecision(4)}. What is the loss?`, short(seen.loss), [1 - share, Math.exp(-share), seen.loss / 2, seen.loss + 1].map(short), `−log ${share.toPrecision(4)} = ${short(seen.loss)}.`)],
      [{ digit: doubtful }, async ({ share }) => { const { bias } = await sum(last(), { y: 0, x: 0, c: wish.label }), slope = share - 1, next = bias - 0.1 * slope; return choice(`A bias is ${bias.toFixed(4)}. The loss' slope for it is ${slope.toFixed(4)}, the rate is 0.1. What is the bias after one step?`, next.toFixed(4), [bias + 0.1 * slope, bias - slope, 0.1 * slope, bias].map((v) => v.toFixed(4)), `${bias.toFixed(4)} − 0.1 × (${slope.toFixed(4)}) = ${next.toFixed(4)}.`); }],
      [{ slopes: true }, ({ slope }) => { const at = (inputRow.cursor = some(inputRow, (_, i) => Math.abs(slope[i]) > 1e-4)), v = value(inputRow, at), grows = v > 0; return choice(`The slope for the pixel in row ${at.y}, column ${at.x} is ${short(v)}. This pixel becomes a little brighter. What does the loss do?`, grows ? "It grows" : "It falls", ["It falls", "It grows"], grows ? "Above 0: more of it, more loss." : "Below 0: more of it, less loss."); }],
    ] },

    wrong: { title: "What goes wrong", need: [() => machine.has_probabilities && first("conv")?.index === 0 && !/padding|dilation|groups|activation/.test(first("conv").layer.text), "probabilities, and at its start a plain convolution with ReLU"], wants: true, on: conv, steps: [
      ({ row, name }) => { const list = valuesOf(row); return `ReLU makes 0 of all that is below 0. In ${name}, ${grouped(list.filter((v) => v === 0).length)} of ${grouped(list.length)} numbers are 0 for this picture. That is fine: a filter finds its stroke here, not there.`; },
      async ({ row }) => { const of = first("relu") ?? row, { dead: none, units, count } = await dead(of); return [`But a unit that is 0 for every picture is dead. ReLU's slope is 0 there, so no slope reaches its weights: it can't learn any more. In ${named(of)}, ${grouped(none)} of ${grouped(units)} were 0 for each of ${count} test pictures.`, of.element]; },
      async () => { const end = await train(tiny(), 0.1, true), found = await dead(rows[1]); return `I train a small network, ${tiny()}, with the rate 0.1, once through all pictures. ${end} Dead, by ${found.count} test pictures: ${found.dead} of ${found.units}.`; },
      async () => { const end = await train(tiny(), 2, true), found = await dead(rows[1]); return `The same with the rate 2, twenty times as large. ${end} Dead: ${found.dead} of ${found.units}. Too long steps threw the weights so far that sums are below 0 for every picture. They don't come back.${seeFilm(true)}`; },
      async () => { const k = machine.classes.length; return `Rate 20. ${await train(tiny(), 20)} Guessing would have a loss of ${short(Math.log(k))} and ${percent(1 / k)} right. Each step leaps over the valley and lands higher up. The cure: a tenth of the rate.`; },
      async () => `And a rate too small? With 0.001: ${await train(tiny(), 0.001)} Nothing breaks, but it hardly moves. A good rate is as large as goes well.`,
      async () => { const z = await sums(), e = z.map((v) => Math.exp(1 / (1 + Math.exp(-v)))), [a] = ranked(); return [`Programs have mistakes, too. The one that this project goes back to put a sigmoid before softmax: that presses each sum between 0 and 1. Here ${a.name} would get ${percent(e[a.k] / e.reduce((s, v) => s + v))} instead of ${percent(a.share)}. With ${z.length} classes it is never more than ${percent(Math.E / (Math.E + z.length - 1))}.`, says]; },
      async () => { const s = await slopes(); return `Another one: it left ReLU out on the way back, and let slopes through where ReLU had made a 0. Say ${machine.classes[wish.label]} is wanted. For ${s.place} the slope with ReLU is ${short(s.right)}, with the mistake ${short(s.wrong)}. Which is right?`; },
      async () => { const s = await slopes(); return `Ask the loss itself! With the pixel ${s.step.toFixed(4)} larger it is ${s.more.toPrecision(6)}; that much smaller, ${s.less.toPrecision(6)}. Difference by distance: ${short(s.measured)}. The network says ${short(s.right)}, the mistake ${short(s.wrong)}. So the ${Math.abs(s.measured - s.right) < Math.abs(s.measured - s.wrong) ? "network" : "mistake"} is nearer.`; },
      () => "A program with such a mistake often still learns, only worse; one has to measure. Twelve such mistakes are kept, to test that each is caught: \"stridenet gradcheck --mutant absolute-value\", in a terminal. Now the quiz.",
    ], quiz: [
      async ({ row, name }) => { const at = some(row, (v) => v === 0), { sum: total } = await sum(row, at); return choice(`In ${name}, row ${at.y}, column ${at.x}, map ${at.c}, the sum is ${short(total)}. What does ReLU make of it?`, short(Math.max(0, total)), [Math.abs(total), total, 1 / (1 + Math.exp(-total))].map(short), `What is below 0 becomes 0. The old program gave ${short(Math.abs(total))}: it only took the sign away.`); },
      async () => { const s = await slopes(), isRight = Math.abs(s.measured - s.right) < Math.abs(s.measured - s.wrong); return choice(`For ${s.place} one program says that the slope is ${short(s.right)}, another says ${short(s.wrong)}. With the pixel ${(2 * s.step).toFixed(4)} larger, the loss goes from ${s.less.toPrecision(6)} to ${s.more.toPrecision(6)}. Who is right?`, short(isRight ? s.right : s.wrong), [s.right, s.wrong].map(short), `${short(s.more - s.less)} ÷ ${(2 * s.step).toFixed(4)} is about ${short(s.measured)}.`); },
      () => { const count = 2 + any(9), best = Math.E / (Math.E + count - 1); return choice(`Softmax after a sigmoid, with ${count} classes. At best the right class has 1 and all others 0. How large can its share be?`, percent(best), [1, 1 / count, (1 + best) / 2].map((v) => percent(v)), `e ÷ (e + ${count - 1}) = ${percent(best)}.`); },
    ] },

    kernels: { title: "Why direct wins", need: [() => first("conv"), "a convolution"], on: async () => ({ ...big(), t: await ladder() }), steps: [
      () => [`A kernel is the piece of program that computes a layer. For convolutions there are several: ${machine.kernels.join(", ")}. All give the same answer. Which is the fastest, and why?`, $("kernels").parentElement],
      [{ kernel: "naive" }, () => { const list = convs(); return [`"naive" is the definition: for each place and filter multiply and add, one after the other. In this network's convolutions that is ${list.map((l) => grouped(l.work)).join(" + ")} products for one picture.`, list[0].row.element]; }],
      ({ t }) => [`I timed them, on your machine, with this picture, all layers together. One after the other takes ${t.naive.time}. The fastest was ${t.best.name}, with ${t.best.time}: ${t.best.beside} as fast.`, $("rungs")],
      [{ kernel: "stride_groups" }, ({ t }) => [`"stride_groups" copies windows that don't overlap into a table, multiplies it by the weights, and puts the results in their places, group by group. Tables go fast, as a processor multiplies several numbers at a time: ${t.stride_groups.time}, ${t.stride_groups.beside} as fast as naive.`, $("rungs")]],
      [{ kernel: "im2col" }, ({ t, name, windows, taps, h, w, c }) => [`"im2col" copies all windows into one large table. In ${name}, these are ${grouped(windows)} × ${taps} = ${grouped(windows * taps)} numbers, made of ${grouped(h * w * c)}. But there is only one product. ${t.im2col.time}.`, $("rungs")]],
      [{ kernel: "direct" }, ({ t }) => [`"direct" copies no windows. Their numbers lie in memory already: it reads them there, for several neighbouring places at once, so that each weight it fetches serves all of these. ${t.direct.time}, ${t.direct.beside} as fast as naive.`, $("rungs")]],
      ({ t, name, windows, taps, work }) => [`Compare, in ${name}: all three multiply ${grouped(work)} times. But im2col and stride_groups first copy ${grouped(windows * taps)} numbers, and direct copies 0. Copying takes time and computes nothing: that is why direct wins. All layers: ${three.map((n) => `${n} ${t[n].time}`).join(", ")}.${three.some((n) => t[n].seconds < t.direct.seconds) ? " This time it didn't: short times vary. Time them again." : ""}`, $("rungs")],
      [{ kernel: "winograd" }, ({ t }) => [`"winograd" multiplies less: in windows of 3 × 3, 36 products make 4 × 4 outputs, instead of 144. It adds more for that, and rounds a bit more. That pays with many maps; elsewhere direct is taken. ${t.winograd.time}.`, $("rungs")]],
      () => [`"auto" takes for each layer what is known to be good for its sizes. Here: ${rows.filter((r) => r.layer.groups).map((r) => `${r.layer.text} by ${seen.layers[r.index].kernel}`).join("; ")}.`, conv().row.element],
      async () => { const looks = await Promise.all(machine.kernels.map((by) => sight({ values: seen.values }, by))), apart = Math.max(...looks.flatMap((l) => l.probabilities.map((p, i) => Math.abs(p - looks[0].probabilities[i])))); return [`All answer alike: no output differs by more than ${short(apart)}. Only the time differs. Now the quiz.`, $("rungs")]; },
    ], quiz: [
      () => { const { name, windows, taps, f, work } = oneOf(convs()); return entry(`In ${name}, there are ${grouped(windows)} places, windows of ${taps} numbers and ${f} filters. How many products does naive compute for one picture?`, work, `${grouped(windows)} × ${taps} × ${f}.`); },
      () => { const { name, windows, taps } = oneOf(convs()); return choice(`In ${name}, there are ${grouped(windows)} places and windows of ${taps} numbers. How many numbers does im2col copy for one picture?`, grouped(windows * taps), [windows, taps, 0].map(grouped), `All windows: ${grouped(windows)} × ${taps}. stride_groups copies as many, group by group.`); },
      ({ name, windows, taps, f }) => choice(`And direct: how many numbers of windows does it copy, in ${name}?`, "0", [windows * taps, windows, taps * f].map(grouped), "It reads them where they lie: as many products, nothing copied. That is why it wins."),
    ] },
  };

  // MARK: The page as a step needs it
  async function stage({ digit = lesson.digit ?? 0, kernel = machine.kernel, groups = false, slopes = false }) {
    closeExplain();
    // What somebody trained, or is training, isn't thrown away unasked.
    if (!machine.is_original && !isKept && !isTrial && !taken) throw { offer: "The network that is here now isn't the page's first one. The lessons go back to that one: what you trained or changed is lost then.", ways: [["Go back to the first network", back]] };
    if (polling) {
      await ask("stop");
      await until(() => !polling);
    }
    if (isTrial) {
      const wasKept = isKept;
      $("reset").click();
      await until(() => machine.is_original && $("progress").textContent === "");
      isTrial = isKept = false;
      fill(fields ?? []);
      fields = null;
      if (wasKept && !lesson.need[0]()) await grow();
    }
    while (taken) {
      taken--;
      const answer = await ask("undo");
      if (!taken) await stepped(answer);
    }
    if (!lesson.need[0]()) throw { offer: `This lesson needs ${lesson.need[1]}. The network here, ${machine.network}, doesn't have that. A small one that has can be trained now, in a few seconds.`, ways: [["Train a small one", grow]] };
    if (typeof digit === "function") digit = await digit();
    await until(() => !busy);
    $("number").value = digit % machine.test_images;
    $("kernels").value = kernels = kernel;
    $("shown").value = "values";
    if (showsGroups !== groups) $("groups").click();
    await load({ test: +$("number").value });
    if (lesson.wants) Object.assign(wish, { label: seen.label != null && seen.label !== ranked()[0].k ? seen.label : (ranked()[0].k + 1) % machine.classes.length, isChosen: true });
    if (slopes) $("shown").value = "gradients";
    if (lesson.wants || slopes) {
      $("should").value = wish.label;
      await look();
    }
  }
  async function back() {
    [isTrial, isKept, taken] = [true, false, 0];
  }
  async function grow() {
    await train((machine.presets.small ?? "conv(16,3) maxpool(2) flatten relu(64) softmax(10)").replace(/softmax\(\d+\)/, `softmax(${machine.classes.length})`), 0.003, false, "adam", 2);
    [isTrial, isKept] = [false, true];
  }

  // MARK: The panel
  const text = make("div", { id: "lesson-text", tabindex: "-1", "aria-live": "polite" }), where = make("b", { id: "lesson-where" }), answers = make("div", { class: "row", id: "lesson-answers" });
  const backwards = make("button", { id: "lesson-back", onclick: () => turnTo(number - 1) }, "Back"), forwards = make("button", { id: "lesson-next", class: "main", onclick: () => turnTo(number + 1) }, "Next");
  const panel = make("section", { id: "lesson", "aria-labelledby": "lesson-title", hidden: true }, make("button", { class: "close", id: "lesson-close", "aria-label": "Close the lesson", onclick: close }, "✕"), make("h2", { id: "lesson-title" }), text, answers, make("div", { class: "row" }, backwards, forwards, where));
  document.body.append(panel);
  panel.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && $("explain").hidden) close();
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by && number + by > 0 && event.target.tagName !== "INPUT" && !event.altKey) turnTo(number + by);
  });
  function turnTo(to) {
    // What a step trains needn't come to its end.
    if (working && isTrial) tell(ask("stop"));
    if (to > 13) close();
    else tell(go(to));
  }
  function show(words, isNew) {
    text.replaceChildren(...[words].flat().map((part) => part?.replace?.(/(^|[.!?] )layer /g, "$1Layer ") ?? part));
    // Who is elsewhere on the page by now isn't called back.
    if (isNew && (panel.contains(document.activeElement) || document.activeElement === document.body)) text.focus({ preventScroll: true });
  }
  // Steps 1 … 10, then three questions.
  async function go(to) {
    const mine = ++turn, isQuiz = to > 10, item = isQuiz ? lesson.quiz[to - 11] : lesson.steps[to - 1], [options, run] = Array.isArray(item) ? item : [{}, item];
    if (to <= 11) score = 0;
    number = to;
    backwards.disabled = to === 1;
    forwards.textContent = to < 10 || isQuiz ? "Next" : "Quiz";
    if (to === 13) forwards.textContent = "Done";
    where.textContent = isQuiz ? `question ${to - 10} of 3` : `${to} of 10`;
    answers.replaceChildren();
    show("One moment …");
    panel.dataset.at = "";
    point(null);
    working++;
    try {
      // What was begun before comes to its end first.
      await until(() => working === 1 || mine !== turn);
      if (mine !== turn) return;
      await stage({ ...(isQuiz && !lesson.digit ? { digit: any(machine.test_images) } : {}), ...options });
      if (mine !== turn) return;
      const about = await lesson.on();
      aim = about.row?.element;
      const found = await run(about);
      if (mine !== turn) return;
      const [words, mark, extra] = [found].flat();
      if (isQuiz) question(found);
      else show([words, ...(extra ? [extra] : [])], true);
      if (mark ?? aim) point(...[mark ?? aim].flat());
      if (seen) overlays();
      panel.dataset.at = to;
    } catch (error) {
      if (mine !== turn) return;
      if (!error.offer && !error.said) { close(); throw error; }
      show(error.offer ?? `This can't be shown with this network: ${error.message}.`, true);
      answers.replaceChildren(...(error.ways ?? []).map(([name, way]) => make("button", { onclick: () => tell((async () => {
        show("One moment …");
        answers.replaceChildren();
        working++;
        try { await way(); } finally { working--; }
        await go(number);
      })()) }, name)));
      panel.dataset.at = to;
    } finally { working--; }
  }
  function question({ text: words, options, right, why, within }) {
    const reply = make("p", { id: "lesson-reply", role: "status" });
    const judge = (isRight) => {
      if (isRight) score++;
      reply.textContent = `${isRight ? "✓ Right." : `✗ Not quite: it is ${Number.isInteger(right) ? grouped(right) : right}.`} ${why}${number === 13 ? ` You had ${score} of 3.` : ""}`;
      reply.style.color = `var(--${isRight ? "good" : "bad"})`;
      forwards.focus();
    };
    if (options) answers.replaceChildren(...options.map((option) => make("button", { class: "answer", onclick: (event) => {
      for (const button of answers.querySelectorAll("button")) { button.disabled = true; if (button.textContent === right) button.prepend("✓ "); }
      judge(option === right);
      if (option !== right) event.target.prepend("✗ ");
    } }, option)));
    else {
      const input = make("input", { id: "lesson-answer", inputmode: "decimal", "aria-label": "Your answer", autocomplete: "off" });
      const check = (event) => {
        event.preventDefault();
        const value = input.value.trim() === "" ? NaN : +input.value.replace(/[,\s%]/g, "");
        if (Number.isNaN(value)) { reply.textContent = "Type a number, such as 1234 or 0.5."; return; }
        input.disabled = form.lastChild.disabled = true;
        judge(Math.abs(value - right) <= within);
      };
      const form = make("form", { class: "row", onsubmit: check }, input, make("button", {}, "Check"));
      answers.replaceChildren(form);
    }
    answers.append(reply);
    show(words, true);
  }
  function close() {
    turn++;
    closeExplain();
    point(null);
    panel.hidden = true;
    document.body.classList.remove("lesson");
    if (showsGroups) $("groups").click();
    $("kernels").value = kernels = machine.kernel;
    $("shown").value = "values";
    tell(look());
    $("lessons").querySelector(`[data-lesson="${lesson?.name}"]`)?.focus();
    // What a step trained or took goes back; what the pupil did stays.
    isKept &&= !isTrial;
    if (isTrial || taken) tell((async () => { await until(() => !working); working++; try { await stage({}).catch((error) => { if (!error.offer) throw error; }); } finally { working--; } })());
  }
  function open(name, step = 1) {
    if (!(name in known)) throw refusal(`no such lesson: ${name}; expected: ${Object.keys(known).join(", ")}`);
    lesson = { name, ...known[name] };
    $("lesson-title").textContent = lesson.title;
    panel.hidden = false;
    document.body.classList.add("lesson");
    text.focus({ preventScroll: true });
    return go(step);
  }
  $("lesson-list").append(...Object.entries(known).map(([name, { title }], i) => make("button", { "data-lesson": name, onclick: () => tell(open(name)) }, `${i + 1}. ${title}`)));
  $("lessons").hidden = false;
  // Another network, by somebody else: nothing of what was kept holds.
  views.push({ built() { mistaken = null; if (!working) isKept = isTrial = false; } });
  return { open };
})();
