// SPDX-License-Identifier: MIT
// Lessons that drive the page, ten steps each, and a quiz whose answers the page computes. A step brings the page
// into the state that it needs, and returns its text, of the numbers that are there, and what to outline.
const lessons = (() => {
  let lesson = null, number = 0, score = 0, turn = 0, working = 0, taken = 0, hardest = null;
  // What a lesson trained: a network to go on with, or one that the next step takes back.
  let isKept = false, isTrial = false;

  // MARK: What steps are made of
  const until = async (isSo) => { for (let i = 0; i < 3000 && !isSo(); i++) await new Promise((done) => setTimeout(done, 20)); };
  const any = (count) => Math.floor(Math.random() * count), times = (shape) => shape.reduce((a, b) => a * b, 1);
  const first = (kind, fits = () => true) => rows.find(({ layer }) => layer.text.startsWith(`${kind}(`) && fits(layer));
  const named = (row) => `layer ${row.index + 1}, ${row.layer.text}`, classNamed = (k) => machine.classes[k];
  // Of a layer with windows: its sizes, those of what is below, and how many numbers a window has.
  function sizes(row) {
    const { shape: [oh, ow, f], window: [fh, fw], stride: [sh, sw], groups: [qh, qw], text } = row.layer, under = all()[row.index], [h, w, c] = under.layer.shape;
    const deep = text.startsWith("conv(") ? c / +(/groups=(\d+)/.exec(text)?.[1] ?? 1) : 1;
    return { row, under, oh, ow, f, fh, fw, sh, sw, qh, qw, h, w, c, deep, windows: oh * ow, taps: fh * fw * deep };
  }
  const conv = () => sizes(first("conv")), pool = () => sizes(first("maxpool")), last = () => rows.at(-1);
  const overlapping = () => sizes(first("conv", hasGroups)), hasGroups = ({ groups, text }) => times(groups) > 1 && !text.includes("dilation");
  const spotOf = (row, index) => {
    const [, w, n] = row.layer.shape;
    return { y: Math.floor(index / (w * n)), x: Math.floor(index / n) % w, c: index % n };
  };
  const peak = (row) => spotOf(row, valuesOf(row).reduce((best, v, i, list) => (v > list[best] ? i : best), 0));
  // A number that isn't 0, if there is one.
  const some = (row) => {
    const list = valuesOf(row), found = [...list.keys()].filter((i) => list[i] !== 0);
    return spotOf(row, found.length ? found[any(found.length)] : 0);
  };
  const sum = (row, { y, x, c }) => ask("provenance", { input: { values: seen.values }, layer: row.index + 1, at: [y, x, c], kernels });
  const products = ({ sum, bias }) => sum - bias;
  const sight = async (input, by = kernels) => {
    const answer = await ask("look", { input, kernels: by, paths: false });
    return { ...answer, values: floats(answer.input), maps: answer.layers.map(({ output }) => floats(output)) };
  };
  const loss = ({ probabilities }, label) => -Math.log(probabilities[label]);
  function point(element) {
    document.querySelector(".pointed")?.classList.remove("pointed");
    element?.classList.add("pointed");
    element?.scrollIntoView({ block: "start", behavior: "instant" });
  }
  async function pick(row, spot) {
    row.cursor = spot;
    point(row.element);
    await explain(row);
    return sum(row, spot);
  }
  const ranked = () => seen.probabilities.map((share, k) => ({ share, k })).sort((a, b) => b.share - a.share);
  const sums = () => Promise.all(machine.classes.map((_, c) => sum(last(), { y: 0, x: 0, c }).then(({ kernel }) => kernel)));
  // The test digit that is mistaken the most certainly, or the first.
  const hard = async () => (hardest ??= (await ask("wrong")).images[0]?.index ?? 0);
  // What it should have been, or where it is right, another class: there is something to learn then.
  const wanted = () => (seen.label !== ranked()[0].k ? seen.label : (seen.label + 1) % machine.classes.length);
  async function teach(rate, count) {
    let answer;
    for (let i = 0; i < count; i++) {
      answer = await ask("step", { input: { values: seen.values }, label: wish.label, kernels, learning_rate: rate });
      taken++;
    }
    $("step-rate").value = rate;
    await stepped(answer);
  }
  // Trains as the button does, and waits for the end.
  async function train(layers, rate, optimizer = "sgd", passes = 1) {
    const chosen = { text: layers, rate, optimizer, batch: 32, epochs: passes, augment: "" };
    for (const [id, value] of Object.entries(chosen)) $(id).value = value;
    await ask("train", { layers, learning_rate: rate, batch_size: 32, epochs: passes, optimizer, kernels });
    isTrial = true;
    points = []; epochs = [];
    await refresh();
    // What has diverged can't be looked at: that is told below.
    await follow().catch((error) => { if (!error.said) throw error; });
    await until(() => !polling);
    machine = await ask("state");
  }
  const tiny = () => `flatten relu(30) softmax(${machine.classes.length})`;
  // Units of a layer that are 0 for each of some test images.
  async function dead(index) {
    const count = Math.min(40, machine.test_images), alive = new Set();
    for (let i = 0; i < count; i++) (await sight({ test: i })).maps[index].forEach((v, k) => { if (v > 0) alive.add(k); });
    const units = times(rows[index].layer.shape);
    return { count, units, dead: units - alive.size };
  }
  const outcome = async () => {
    const { failure } = await ask("training", { since: 0 }), end = epochs.at(-1);
    return failure ?? (end ? `Mean loss: ${short(end.train_loss)}. Of the test images ${percent(1 - end.test_error)} are right.` : "It was stopped before its end.");
  };
  // A pixel's slope by a difference of losses, by the network, and without ReLU's share on the way back.
  async function slopes() {
    const row = conv(), { fh, fw, sh, sw, h, w, c, oh, ow, f } = row, label = wish.label, input = { values: seen.values };
    const { input: image, layers } = await ask("gradients", { input, label, kernels }), right = floats(image), up = floats(layers[0]), weights = floats(machine.filters), wrong = new Float32Array(right.length), again = new Float32Array(right.length);
    for (let y = 0; y < oh; y++) for (let x = 0; x < ow; x++) for (let k = 0; k < f; k++) {
      const o = (y * ow + x) * f + k, slope = up[o];
      if (slope) for (let i = 0; i < fh; i++) for (let j = 0; j < fw; j++) for (let d = 0; d < c; d++) {
        const at = ((y * sh + i) * w + x * sw + j) * c + d, part = slope * weights[((i * fw + j) * c + d) * f + k];
        wrong[at] += part;
        if (seen.maps[0][o] > 0) again[at] += part;
      }
    }
    const at = wrong.reduce((best, v, i) => (Math.abs(v - right[i]) > Math.abs(wrong[best] - right[best]) ? i : best), 0), step = 1 / 64;
    const [more, less] = await Promise.all([step, -step].map((by) => sight({ values: seen.values.map((v, i) => (i === at ? v + by : v)) })));
    return { at: spotOf(inputRow, at), right: right[at], again: again[at], wrong: wrong[at], up: loss(more, label), down: loss(less, label), step, measured: (loss(more, label) - loss(less, label)) / (2 * step) };
  }
  const isPlain = ({ text }) => !/padding|dilation|groups|activation/.test(text);

  // MARK: The lessons: what a network must have for it, the steps, the quiz
  const all10 = {
    convolution: { title: "What a convolution is", need: [() => first("conv"), "a convolution"], steps: [
      () => [`You see a picture. The network sees ${grouped(times(machine.input))} numbers: ${machine.input.join(" × ")} (rows, columns, colours). 0 is black, 1 is white. All that it says is made from these.`, inputRow.element],
      () => [`The first convolution is ${named(conv().row)}. It looks at its input through a small window of ${conv().fh} × ${conv().fw}. It makes one number of what it sees, moves on, and makes the next. All these numbers make a new picture: a map.`, conv().row.element],
      async () => {
        const { row, fh, fw, deep } = conv(), { y, x, c } = peak(row), { result } = await pick(row, { y, x, c });
        return [`This is its largest number, ${short(result)}, in row ${y}, column ${x} of map ${c} (we count from 0). It is made of the ${fh * fw * deep} numbers in the outlined window below it.`];
      },
      async () => {
        const { row } = conv(), found = await pick(row, peak(row));
        return [`Look at the box "Layer ${row.index + 1}". Each number in the window is multiplied by a weight, a number that the layer has learned. The ${found.terms.length + found.others} products are added up: ${short(products(found))}.`, $("explain")];
      },
      async () => {
        const { row } = conv(), { bias, sum, activation, result } = await pick(row, peak(row));
        return [`Then the bias is added, ${short(bias)}: a learned number, too. That makes ${short(sum)}. ${activation === "relu" ? "At last ReLU: below 0 it becomes 0, else it stays." : activation === "none" ? "Nothing more is done to it." : `At last ${activation}, a curve, is applied.`} So it is ${short(result)}. Window times weights, plus bias: this is a convolution.`, $("explain")];
      },
      async () => {
        const { row, ow, sw } = conv(), { y, x, c } = peak(row), next = x + 1 < ow ? x + 1 : Math.max(0, x - 1), { result } = await pick(row, { y, x: next, c });
        return [`One place further, the window has moved by ${sw} column${sw > 1 ? "s" : ""}. The weights are the same as before; only what they meet is new. Here it makes ${short(result)}.`];
      },
      () => {
        const { row, oh, ow, h, fh } = conv();
        return [`The window stops at ${oh} × ${ow} = ${grouped(oh * ow)} places.${oh === h - fh + 1 ? ` It can't hang over the edge, so of ${h} rows there are ${h} − ${fh} + 1 = ${oh} places down.` : ""} The map shows where in the picture the filter found what it looks for: orange is more.`, row.element];
      },
      () => {
        const { row, f, taps } = conv();
        return [`One set of ${taps} weights is a filter. This layer has ${f}, so it makes ${f} maps: the tiles side by side. ${row.index === 0 && machine.filters.length ? "Here are its filters. Orange weights count for, blue ones against." : ""}`, row.index === 0 && machine.filters.length ? $("filters") : row.element];
      },
      () => {
        const { row, f, taps, h, w, c, oh, ow } = conv();
        return [`All it has to learn: ${f} × ${taps} weights and ${f} biases, ${grouped(row.layer.parameters)} numbers. If each output had its own weight for each input, that would be ${grouped(h * w * c * oh * ow * f)}. What helps to find a stroke here helps there: weights are shared by all places.`, row.element];
      },
      async () => {
        const { row } = conv(), next = rows.find((r) => r.index > row.index && r.layer.text.startsWith("conv("));
        if (!next) return ["The layers above go on with these maps as this one did with the picture: from strokes to the whole digit. Now the quiz.", row.element];
        const { fh, fw, deep, taps } = sizes(next);
        await pick(next, peak(next));
        return [`The next convolution, ${named(next)}, does the same to the maps. Its windows reach through ${deep} maps: ${fh} × ${fw} × ${deep} = ${taps} products in each number. So strokes become corners, and corners digits. Now the quiz.`];
      },
    ], quiz: [
      async () => {
        const { row } = conv(), at = some(row), found = await pick(row, at), total = products(found), end = found.activation === "none" ? "Nothing comes after that" : `Then comes ${found.activation}`;
        closeExplain();
        return choice(`In ${named(row)}, row ${at.y}, column ${at.x}, map ${at.c}, the products add up to ${short(total)}. The bias is ${short(found.bias)}. ${end}. What does the layer give?`, short(found.result), [short(total), short(total - found.bias), short(-found.sum), short(total * found.bias)], `${short(total)} + ${short(found.bias)} = ${short(found.sum)}; after the activation that is ${short(found.result)}.`);
      },
      () => { const size = 2 + any(5), side = 10 + any(20), places = side - size + 1; return entry(`A window of ${size} × ${size} moves in steps of 1 over a picture of ${side} × ${side}, and may not hang over the edge. At how many places does it stop, in all?`, places ** 2, `${side} − ${size} + 1 = ${places} places down, as many across: ${places} × ${places} = ${places ** 2}.`); },
      () => { const { row, f, taps } = sizes(rows.filter((r) => r.layer.text.startsWith("conv(")).at(-1)); return entry(`${named(row)} has ${f} filters. Its windows hold ${taps} numbers. How many weights and biases does it learn?`, row.layer.parameters, `Each filter has ${taps} weights and a bias: ${f} × ${taps + 1} = ${f * (taps + 1)}.`, row.element); },
    ] },

    groups: { title: "What a stride group is", need: [() => first("conv", hasGroups), "a convolution whose windows overlap"], steps: [
      [{ kernel: "naive" }, () => { const { row, oh, ow, windows } = overlapping(); return [`In ${named(row)} the window stops at ${oh} × ${ow} = ${grouped(windows)} places. The kernel "naive" goes to one after another. (A kernel is the piece of program that computes a layer.) That is simple, but many small jobs. Could many windows be done at once?`, row.element]; }],
      async () => { const { row, fh, fw } = overlapping(); await pick(row, { y: 0, x: 0, c: 0 }); return [`Here is the first place. Its window covers ${fh} × ${fw} = ${fh * fw} squares of each map below: the outline.`]; },
      async () => { const { row, fh, fw, sw, ow } = overlapping(); await pick(row, { y: 0, x: Math.min(1, ow - 1), c: 0 }); return [`The next place, ${sw} to the right. Its window shares ${fh * Math.max(0, fw - sw)} of its ${fh * fw} squares with the first one: they overlap. To put both side by side into a table, the shared numbers would have to be copied twice.`]; },
      async () => { const { row, fw, sw, qw, ow } = overlapping(); await pick(row, { y: 0, x: Math.min(qw, ow - 1), c: 0 }); return [qw < ow ? `${qw} places to the right, the window shares nothing with the first one. Why ${qw}? A window is ${fw} wide and each step moves it by ${sw}. So ${fw} ÷ ${sw}, rounded up: ${Math.ceil(fw / sw)} steps take it off itself.` : `Here each window of a row overlaps the first: there are only ${ow} places.`]; },
      [{ groups: true }, () => { const { row, qh, qw } = overlapping(); return [`Take every ${qw}th place across and every ${qh}th down. No two of these windows overlap. Such a set is a stride group: windows that share no number. On the first map each colour is one group.`, row.element]; }],
      [{ groups: true }, () => { const { row, qh, qw } = overlapping(); return [`What was left out is another group, and another. There are ${qh} × ${qw} = ${qh * qw} groups, and each place is in exactly one. A larger picture would have more windows in a group, but not more groups.`, row.element]; }],
      [{ groups: true }, () => { const { oh, ow, qh, qw, taps, f, row } = overlapping(), rowsIn = Math.ceil(oh / qh) * Math.ceil(ow / qw); return [`The first group has ${Math.ceil(oh / qh)} × ${Math.ceil(ow / qw)} = ${rowsIn} windows. They become the lines of a table: ${rowsIn} lines of ${taps} numbers. One multiplication of tables, with the weights of all ${f} filters, gives all its outputs at once.`, row.element]; }],
      [{ kernel: "stride_groups", groups: true }, () => { const { row, qh, qw, windows } = overlapping(); return [`The kernel "stride_groups" works so. Read the line above the maps: ${qh * qw} passes instead of ${grouped(windows)} windows.`, row.element]; }],
      [{ groups: true }, () => { const one = rows.find(({ layer }) => layer.groups && times(layer.groups) === 1); return [`If the step is as large as the window, no windows overlap at all. Then there is one group. ${one ? `So it is in ${named(one)}: one colour.` : "This network has no such layer; most poolings are so."}`, (one ?? overlapping().row).element]; }],
      async () => {
        const { row } = overlapping(), [a, b] = await Promise.all(["naive", "stride_groups"].map((by) => sight({ values: seen.values }, by))), apart = a.maps[row.index].reduce((most, v, i) => Math.max(most, Math.abs(v - b.maps[row.index][i])), 0);
        return [`Is the answer the same? I let both kernels compute this layer. The largest difference is ${short(apart)}${apart ? ": only rounding, as they add in different orders" : ""}. So: a stride group is a set of windows, no two of which overlap, that are computed in one pass. Now the quiz.`, row.element];
      },
    ], quiz: [
      () => { const f = 2 + any(5), s = 1 + any(3), q = Math.ceil(f / s); return entry(`A window of ${f} × ${f} moves in steps of ${s} over a large picture. How many stride groups are there, in all?`, q * q, `${f} ÷ ${s}, rounded up, is ${q}: ${q} groups down times ${q} across.`); },
      [{ groups: true }, () => {
        const { row, oh, ow, qh, qw } = overlapping(), [y, x] = [any(oh), any(ow)], isSame = any(2) && (y + qh < oh || y >= qh), other = isSame ? [y + qh < oh ? y + qh : y - qh, x] : [any(oh), any(ow)], same = (y - other[0]) % qh === 0 && (x - other[1]) % qw === 0;
        return choice(`In ${named(row)}: is the window at row ${y}, column ${x} in the same stride group as the one at row ${other[0]}, column ${other[1]}?`, same ? "Yes" : "No", [same ? "No" : "Yes"], `Apart by ${Math.abs(y - other[0])} rows and ${Math.abs(x - other[1])} columns. In one group both are multiples: of ${qh} and of ${qw}.`, row.element);
      }],
      () => { const { row, oh, ow, qh, qw } = sizes(rows.filter(({ layer }) => layer.text.startsWith("conv(") && hasGroups(layer)).at(-1)), count = Math.ceil(oh / qh) * Math.ceil(ow / qw); return entry(`${named(row)} has ${oh} × ${ow} places and ${qh} × ${qw} groups. How many windows are in the group of the first place?`, count, `${oh} ÷ ${qh} and ${ow} ÷ ${qw}, rounded up: ${Math.ceil(oh / qh)} × ${Math.ceil(ow / qw)} = ${count}.`, row.element); },
    ] },

    pooling: { title: "Why pooling", need: [() => first("maxpool"), "max-pooling"], steps: [
      () => { const { under, h, w, c } = pool(); return [`Here are ${c} maps of ${h} × ${w}: ${grouped(h * w * c)} numbers. The picture had ${grouped(times(machine.input))}. That is a lot to go on with, and neighbours often say nearly the same.`, under.element]; },
      () => { const { row, fh, fw, sw } = pool(); return [`Pooling makes maps smaller. ${named(row)} looks at windows of ${fh} × ${fw}, in steps of ${sw}, each map by itself, and lets one number of each window through.`, row.element]; },
      async () => { const { row, fh, fw } = pool(), at = peak(row), { sum } = await pick(row, at), list = windowOf(row, all()[row.index]).map((t) => short(t.value)); return [`Which one? The largest. In this window are the ${fh * fw} numbers ${list.join(", ")}. The largest, ${short(sum)}, goes on. The others go nowhere.`]; },
      () => { const { row } = pool(); return [`Nothing is multiplied here, and there is nothing to learn: ${row.layer.parameters} weights.`, row.element]; },
      () => { const { row, h, w, c, windows } = pool(); return [`What comes out: ${row.layer.shape.join(" × ")} = ${grouped(windows * c)} numbers. Before, there were ${grouped(h * w * c)}: ${short((h * w) / windows)} times as many.`, row.element]; },
      () => {
        const { row, h, w, windows } = pool(), next = rows.find((r) => r.index > row.index && r.layer.groups && r.layer.text.startsWith("conv("));
        if (!next) return ["A first reason: less work for the layer above, which has a weight for each number that comes. With fewer numbers it needs fewer weights.", row.element];
        const work = times(next.layer.shape) * sizes(next).taps;
        return [`A first reason: less work. ${named(next)} multiplies ${grouped(work)} times for a picture. Without the pooling it would have about ${short((h * w) / windows)} times as many places, and so as many more products.`, next.element];
      },
      () => {
        const { row, fh, sh } = pool();
        let view = 1, jump = 1, at = null;
        for (const { layer, index } of rows) if (layer.groups && index <= row.index) { view += (layer.window[0] - 1) * +(/dilation=(\d+)/.exec(layer.text)?.[1] ?? 1) * jump; jump *= layer.stride[0]; at = index; }
        return [`A second reason: a wider view. One number of ${named(rows[at])} depends on ${view} rows of the picture. For the layer above, one step is ${jump} rows. So its small windows see larger parts of the digit.`, row.element];
      },
      async () => {
        const { row, under } = pool(), before = seen.maps, [, w, c] = machine.input, moved = Float32Array.from(seen.values, (_, i) => (Math.floor(i / c) % w ? seen.values[i - c] : 0));
        await load({ values: moved });
        const change = (r) => { let [top, bottom] = [0, 0]; before[r.index].forEach((v, i) => { top += (v - seen.maps[r.index][i]) ** 2; bottom += v * v; }); return Math.sqrt(top / bottom); };
        const [a, b] = under.index < 0 ? [NaN, change(row)] : [change(under), change(row)];
        return [`A third reason: it minds less where exactly things are. I moved the picture right by one pixel. ${Number.isNaN(a) ? "" : `The maps before pooling change by ${percent(a, 0)} of their size, those after it by ${percent(b, 0)}${b < a ? "" : ": here not less, it helps on the whole, not each time"}.`} A digit is the same digit one pixel further on.`, row.element];
      },
      async () => { const { row, fh, fw } = pool(); await pick(row, peak(row)); return [`There is a price. The layer above knows that something was found in these ${fh} × ${fw} squares, but no longer where. To name a digit that is good enough.`]; },
      async () => { const { row } = pool(), { sum } = await pick(row, peak(row)), list = windowOf(row, all()[row.index]); return [`Another pooling takes the mean: avgpool. Here it would give ${short(list.reduce((a, t) => a + t.value, 0) / list.length)} instead of ${short(sum)}. The largest says "it is there"; the mean says "how much of it". Now the quiz.`]; },
    ], quiz: [
      async () => {
        const { row } = pool(), at = some(row);
        row.cursor = at;
        const list = windowOf(row, all()[row.index]).map((t) => t.value), largest = Math.max(...list), total = list.reduce((a, b) => a + b, 0);
        return choice(`A max-pooling's window holds ${list.map(short).join(", ")}. What goes on?`, short(largest), [short(total / list.length), short(total), short(Math.min(...list))], "The largest goes on, as it is. No mean, no sum.", row.element);
      },
      () => { const side = 2 * (5 + any(20)); return entry(`A map of ${side} × ${side} goes through a pooling with windows of 2 × 2 in steps of 2. How many numbers come out?`, side * side / 4, `${side / 2} × ${side / 2} = ${side * side / 4}: one for each window, a quarter.`); },
      () => { const { row, h, w, c, windows } = pool(); return entry(`${named(row)} gets ${grouped(h * w * c)} numbers and passes on ${grouped(windows * c)}. How many does it leave out?`, (h * w - windows) * c, `${grouped(h * w * c)} − ${grouped(windows * c)} = ${grouped((h * w - windows) * c)}.`, row.element); },
    ] },

    percentage: { title: "Where the percentage comes from", need: [() => machine.has_probabilities && last().layer.text.startsWith("softmax("), "a softmax at its end"], steps: [
      () => [`It says ${$("verdict").textContent}, with ${percent(ranked()[0].share, 2)}. Nobody told it that number. We go back, step by step, to where it comes from.`, $("says-title").parentElement],
      () => [`There is a share for each class. All of them add up to ${percent(seen.probabilities.reduce((a, b) => a + b, 0))}. The last layer, ${named(last())}, makes them. It does two things: sums, then softmax.`, $("says-title").parentElement],
      async () => { const { k } = ranked()[0], { kernel, terms, others } = await pick(last(), { y: 0, x: 0, c: k }); return [`First the sum for ${classNamed(k)}. ${terms.length + others} numbers come from the layer below. Each is multiplied by a weight; the products and a bias add up to ${short(kernel)}. This is no percentage yet: any number is possible.`, $("explain")]; },
      async () => { const [a, b] = ranked(), z = await sums(); await pick(last(), { y: 0, x: 0, c: b.k }); return [`Each class has weights of its own, and so a sum of its own. For ${classNamed(b.k)}, which came second, it is ${short(z[b.k])}. For ${classNamed(a.k)} it was ${short(z[a.k])}.`, $("explain")]; },
      async () => { const z = await sums(), { k } = ranked()[0]; await pick(last(), { y: 0, x: 0, c: k }); return [`Now softmax. It takes the largest sum, ${short(Math.max(...z))}, away from each. So the winner has 0, and the others are below 0. Scroll down in the box: there is a line for each class.`, $("explain")]; },
      async () => { const z = await sums(), [a, b] = ranked(); await pick(last(), { y: 0, x: 0, c: b.k }); return [`Then the exponential, e (which is 2.718…) to the power of that. It is never below 0. The winner has e⁰ = 1. ${classNamed(b.k)} has e to the power of ${short(z[b.k])} − ${short(z[a.k])} = ${short(z[b.k] - z[a.k])}, which is ${short(Math.exp(z[b.k] - z[a.k]))}.`, $("explain")]; },
      async () => { const z = await sums(), [a] = ranked(), total = z.reduce((s, v) => s + Math.exp(v - z[a.k]), 0); await pick(last(), { y: 0, x: 0, c: a.k }); return [`Last, each is divided by the sum of all, ${total.toPrecision(6)}. For ${classNamed(a.k)}: 1 ÷ ${total.toPrecision(6)} = ${percent(1 / total, 2)}. That is where the percentage comes from: sums, exponentials, and one division.`, $("explain")]; },
      async () => { const z = await sums(), [a, b] = ranked(); return [`Only differences count. ${classNamed(a.k)} is ahead of ${classNamed(b.k)} by ${short(z[a.k] - z[b.k])}. So its share is e to that power, ${short(Math.exp(z[a.k] - z[b.k]))} times as large. Each 1 of lead makes the share 2.718 times as large beside the other's.`, last().element]; },
      [{ digit: hard }, () => { const [a] = ranked(); return [a.k === seen.label ? "This network is right about all the test digits here. Another might not be: a share is not a promise." : `A share is not a promise. Test digit ${source.test} is labelled ${classNamed(seen.label)}. The network says ${classNamed(a.k)} with ${percent(a.share)}. It can be sure and wrong.`, $("says-title").parentElement]; }],
      async () => { const { count, of } = await ask("wrong"); return [`Another percentage is how often it is right. For that one counts: ${grouped(of - count)} of ${grouped(of)} test digits, ${percent(1 - count / of, 2)}. It has never learned from these. Don't mix up the two: one is about one picture, the other about many. Now the quiz.`, $("list").parentElement]; },
    ], quiz: [
      async () => {
        const z = await sums(), [a, b] = ranked(), most = z[a.k], total = z.reduce((s, v) => s + Math.exp(v - most), 0), e = Math.exp(z[b.k] - most);
        return choice(`For class ${classNamed(b.k)} the exponential is ${short(e)}. All ${z.length} exponentials add up to ${total.toPrecision(5)}. What is its share?`, share(e / total), [share(e / total / 10), share(Math.sqrt(e / total)), share(1 - e / total), share(1 / z.length)], `${short(e)} ÷ ${total.toPrecision(5)} = ${share(e / total)}.`, last().element);
      },
      async () => { const z = await sums(), few = [...z.keys()].sort(() => Math.random() - 0.5).slice(0, 3), best = few.reduce((a, b) => (z[b] > z[a] ? b : a)); return choice(`The sums are: ${few.map((k) => `${classNamed(k)}: ${z[k].toFixed(2)}`).join("; ")}. Which of the three has the largest share?`, classNamed(best), few.filter((k) => k !== best).map(classNamed), "The largest sum has the largest share. Softmax never changes the order; −1 is more than −5.", last().element); },
      () => { const [a] = ranked(), others = 100 - 100 * a.share; return entry(`${classNamed(a.k)} has ${percent(a.share, 2)}. How many percent have all other classes together?`, +others.toFixed(2), `All add up to 100 %: 100 − ${(100 * a.share).toFixed(2)} = ${others.toFixed(2)}.`, $("says-title").parentElement, 0.011); },
    ] },

    learning: { title: "How it learns", need: [() => machine.has_probabilities, "a softmax at its end"], digit: hard, wants: true, steps: [
      () => { const [a] = ranked(); return [`This is test digit ${source.test}. The network says ${classNamed(a.k)}, with ${percent(a.share)}. We want it to say ${classNamed(wish.label)}. How could it learn that? By changing its ${grouped(machine.parameters)} weights and biases, each a little.`, $("says-title").parentElement]; },
      () => [`First, how wrong is it? It gives ${classNamed(wish.label)} a share of ${percent(seen.probabilities[wish.label], 2)}. The loss is minus the logarithm of that share: ${short(seen.loss)}. One number for how bad it is.`, $("loss-now")],
      () => [`A share of 100 % has the loss ${short(-Math.log(1))}, 50 % has ${short(Math.log(2))}, 10 % has ${short(Math.log(10))}, 1 % has ${short(Math.log(100))}. So the smaller the loss, the better. Learning means: make it smaller.`, $("loss-now")],
      [{ slopes: true }, () => [`Now the maps show slopes: how fast the loss grows if a number grows. Orange: more of it makes the loss larger. Blue: more of it makes the loss smaller.`, inputRow.element]],
      [{ slopes: true }, () => { const { label } = wish, share = seen.probabilities[label]; return [`The last layer's slopes are easy: for the wanted class its share less 1, ${share.toFixed(3)} − 1 = ${(share - 1).toFixed(3)}. For the others, their shares. From here slopes are computed downwards, layer by layer: backpropagation.`, last().element]; }],
      [{ slopes: true }, async () => {
        const slope = seen.gradients[0], at = slope.reduce((best, v, i) => (Math.abs(v) > Math.abs(slope[best]) ? i : best), 0), by = 0.01, more = await sight({ values: seen.values.map((v, i) => (i === at ? v + by : v)) });
        const { y, x } = inputRow.cursor = spotOf(inputRow, at), now = loss(more, wish.label);
        return [`Believe it? Try it! I made the pixel in row ${y}, column ${x} larger by ${by}. The loss went from ${seen.loss.toFixed(5)} to ${now.toFixed(5)}. That is ${short((now - seen.loss) / by)} for each 1. The slope says ${short(slope[at])}.`, inputRow.element];
      }],
      () => [`Weights have slopes as well. A learning step moves each weight against its slope: new weight = weight − rate × slope. Against it, since uphill is worse. The rate says how far. Here it is 0.001.`, $("backwards")],
      async () => { const before = seen.loss; await teach(0.001, 1); return [`One step is done. The loss was ${short(before)} and is now ${short(seen.loss)}. All the maps have changed a little, too.`, $("loss-now")]; },
      async () => { const before = seen.loss; await teach(0.001, 10); return [`Ten steps: the loss went from ${short(before)} to ${short(seen.loss)}. Now it gives ${classNamed(wish.label)} ${percent(seen.probabilities[wish.label])}. But learning one digit by heart may spoil others. So one learns from many.`, $("loss-now")]; },
      async () => { const k = machine.classes.length; await train(`flatten softmax(${k})`, 0.1); return [`Training takes the mean slope of 32 pictures, steps, and takes the next 32. I did it with a new, small network, once through all training pictures. At first it knows nothing, each class has a share near 1/${k}: loss near ${short(Math.log(k))}. Then: ${await outcome()} Now the quiz.`, $("progress").parentElement]; },
    ], quiz: [
      () => { const s = seen.probabilities[wish.label]; return choice(`The wanted class ${classNamed(wish.label)} has a share of ${s.toPrecision(4)}. What is the loss?`, short(seen.loss), [short(1 - s), short(Math.exp(-s)), short(seen.loss / 2), short(seen.loss + 1)], `−log ${s.toPrecision(4)} = ${short(seen.loss)}.`, $("backwards")); },
      async () => { const { bias } = await sum(last(), { y: 0, x: 0, c: wish.label }), slope = seen.probabilities[wish.label] - 1, rate = 0.1, next = bias - rate * slope; return choice(`A bias is ${bias.toFixed(4)}. The loss' slope for it is ${slope.toFixed(4)}, the rate is ${rate}. What is the bias after one step?`, next.toFixed(4), [bias + rate * slope, bias - slope, rate * slope, bias].map((v) => v.toFixed(4)), `${bias.toFixed(4)} − ${rate} × (${slope.toFixed(4)}) = ${next.toFixed(4)}.`, last().element); },
      [{ slopes: true }, () => { const list = seen.gradients[0], found = [...list.keys()].filter((i) => Math.abs(list[i]) > 1e-4), at = found[any(found.length)] ?? 0, grows = list[at] > 0, { y, x } = (inputRow.cursor = spotOf(inputRow, at)); return choice(`The slope for the pixel in row ${y}, column ${x} is ${short(list[at])}. This pixel becomes a little brighter. What does the loss do?`, grows ? "It grows" : "It falls", [grows ? "It falls" : "It grows"], `The slope is ${grows ? "above 0: more of it, more loss" : "below 0: more of it, less loss"}.`, inputRow.element); }],
    ] },

    wrong: { title: "What goes wrong", need: [() => machine.has_probabilities && first("conv")?.index === 0 && isPlain(first("conv").layer), "a softmax at its end and a plain convolution with ReLU at its start"], wants: true, steps: [
      () => { const { row } = conv(), list = valuesOf(row), zeros = list.filter((v) => v === 0).length; return [`ReLU makes 0 of each number below 0. In ${named(row)}, ${grouped(zeros)} of ${grouped(list.length)} numbers are 0 for this picture. That is as it should be: a filter finds its stroke here, and not there.`, row.element]; },
      async () => { const row = first("relu") ?? conv().row, found = await dead(row.index); return [`But a unit that is 0 for every picture is dead: it says nothing. ReLU's slope is 0 there, so no slope gets through to its weights, and it never learns again. In ${named(row)}, ${grouped(found.dead)} of ${grouped(found.units)} numbers were 0 for all of the first ${found.count} test pictures.`, row.element]; },
      async () => { await train(tiny(), 0.1); const found = await dead(1); return [`I train a small network, ${tiny()}, with the rate 0.1, once through the training pictures. ${await outcome()} Of its ${found.units} ReLUs ${found.dead} are dead on ${found.count} test pictures.`, rows[1].element]; },
      async () => { await train(tiny(), 2); const found = await dead(1); return [`The same once more, with the rate 2: twenty times as large. ${await outcome()} Dead now: ${found.dead} of ${found.units}. Steps too long threw the weights so far that the sums are below 0 for all pictures. From there they don't come back.`, rows[1]?.element]; },
      async () => { await train(tiny(), 20); const k = machine.classes.length; return [`Rate 20. ${await outcome()} Just guessing would have a loss of ${short(Math.log(k))} and ${percent(1 / k)} right. Each step jumps over the valley and lands higher on the other side. The cure: a tenth of the rate, and again.`, $("progress").parentElement]; },
      async () => { await train(tiny(), 0.001); return [`And a rate too small? 0.001: ${await outcome()} Nothing breaks, but it hardly moves. A good rate is as large as goes well.`, $("progress").parentElement]; },
      async () => { const z = await sums(), squashed = z.map((v) => 1 / (1 + Math.exp(-v))), exps = squashed.map(Math.exp), [a] = ranked(), share = exps[a.k] / exps.reduce((s, v) => s + v, 0); return [`Now mistakes in programs. The program that this project goes back to put a sigmoid before its softmax: it presses each sum between 0 and 1. With this picture's sums, ${classNamed(a.k)} would get ${percent(share)} instead of ${percent(a.share)}. With ${z.length} classes never more than ${percent(Math.E / (Math.E + z.length - 1))}: it can't become sure.`, $("says-title").parentElement]; },
      async () => { const s = await slopes(); return [`Another of its mistakes: on the way back it left ReLU out, and let slopes through where ReLU had made a 0. I computed both for the pixel in row ${s.at.y}, column ${s.at.x}. With ReLU the slope is ${short(s.again)}; with the mistake, ${short(s.wrong)}. Which is right?`, inputRow.element]; },
      async () => { const s = await slopes(); return [`Ask the loss itself. With the pixel ${s.step} larger it is ${s.up.toPrecision(6)}; ${s.step} smaller, ${s.down.toPrecision(6)}. The difference over ${2 * s.step} is ${short(s.measured)}. The network says ${short(s.right)}, the mistake ${short(s.wrong)}: ${Math.abs(s.measured - s.right) < Math.abs(s.measured - s.wrong) ? "the network is right" : "here a corner of ReLU lies between, so the measure doesn't tell"}.`, inputRow.element]; },
      () => [`A program with such a mistake often still learns, only worse. So one doesn't see it, unless one measures. Twelve mistakes like these are kept, to see that the check finds each: "stridenet gradcheck --mutant absolute-value" is one. Now the quiz.`, inputRow.element],
    ], quiz: [
      async () => {
        const { row } = conv(), zeros = [...valuesOf(row).keys()].filter((i) => valuesOf(row)[i] === 0), at = spotOf(row, zeros[any(zeros.length)] ?? 0), { sum: total } = await sum(row, at);
        return choice(`In ${named(row)}, row ${at.y}, column ${at.x}, map ${at.c}, the sum is ${short(total)}. What does ReLU make of it?`, short(Math.max(0, total)), [short(Math.abs(total)), short(total), short(1 / (1 + Math.exp(-total)))], `ReLU gives the number if it is above 0, else 0. One program gave ${short(Math.abs(total))}: it had taken away the sign.`, row.element);
      },
      async () => { const s = await slopes(), pair = [s.right, s.wrong].map(short); return choice(`For the pixel in row ${s.at.y}, column ${s.at.x} one program says the slope is ${short(s.right)}, another says ${short(s.wrong)}. With the pixel ${2 * s.step} larger the loss goes from ${s.down.toPrecision(6)} to ${s.up.toPrecision(6)}. Who is right?`, short(Math.abs(s.measured - s.right) < Math.abs(s.measured - s.wrong) ? s.right : s.wrong), pair, `The loss changes by ${short(s.up - s.down)} for ${2 * s.step}: a slope of ${short(s.measured)}.`, inputRow.element); },
      async () => { const count = 2 + any(9), best = Math.E / (Math.E + count - 1); return choice(`Softmax after a sigmoid, with ${count} classes: the best case is 1 for the right class and 0 for the others. How large can its share be at most?`, percent(best), [percent(1), percent(1 / count), percent((1 + best) / 2)], `e ÷ (e + ${count - 1}) = ${percent(best)}: never sure.`, last().element); },
    ] },

    kernels: { title: "Why direct wins", need: [() => first("conv"), "a convolution"], steps: [
      () => [`A kernel is the piece of program that computes a layer. For convolutions there are several: ${machine.kernels.join(", ")}. They give the same answer by different ways. Which is the fastest, and why?`, $("kernels").parentElement],
      [{ kernel: "naive" }, () => { const list = convs(), total = list.reduce((s, v) => s + v.work, 0); return [`"naive" is the definition: for each place and each filter, multiply and add, one after the other. For this network's convolutions that is ${list.map((v) => grouped(v.work)).join(" + ")}${list.length > 1 ? ` = ${grouped(total)}` : ""} products for one picture.`, conv().row.element]; }],
      async () => { const t = await ladder(); return [`I timed all of them, here on your machine, with this picture. One after another takes ${t.naive.time}. The fastest was ${t.best.name}, with ${t.best.time}: ${t.best.beside} as fast.`, $("rungs")]; },
      [{ kernel: "stride_groups" }, async () => { const t = await ladder(), { taps, windows } = big(); return [`"stride_groups" copies windows that don't overlap into a table, multiplies it by the weights, and puts the results in their places: a pass for each group. Multiplying tables goes fast: a processor takes several numbers at a time. ${t.stride_groups.time}, ${t.stride_groups.beside} as fast as naive.`, $("rungs")]; }],
      [{ kernel: "im2col" }, async () => { const t = await ladder(), { row, taps, windows, h, w, c } = big(); return [`"im2col" copies all windows into one large table. For ${named(row)} these are ${grouped(windows)} × ${taps} = ${grouped(windows * taps)} numbers, made of ${grouped(h * w * c)}: most are copied again and again. But there is only one product. ${t.im2col.time}.`, $("rungs")]; }],
      [{ kernel: "direct" }, async () => { const t = await ladder(); return [`"direct" copies no windows. A window's numbers already lie in memory, row by row, so it reads them where they are. It keeps the sums of several neighbouring places at hand at once, and each weight it fetches serves all of them. ${t.direct.time}, ${t.direct.beside} as fast as naive.`, $("rungs")]; }],
      async () => { const t = await ladder(), { row, windows, taps, f } = big(); return [`Compare, for ${named(row)}: all three multiply ${grouped(windows * taps * f)} times. im2col and stride_groups first copy ${grouped(windows * taps)} numbers, direct copies 0. Copying computes nothing, but takes time. That is why direct wins. Here: ${["stride_groups", "im2col", "direct"].map((n) => `${n} ${t[n].time}`).join(", ")}.`, $("rungs")]; },
      [{ kernel: "winograd" }, async () => { const t = await ladder(); return [`"winograd" goes further: it multiplies less. For 3 × 3 windows, 4 × 4 outputs take 36 products instead of 144, but more additions, and a bit more rounding. It pays with many maps. Where it doesn't fit, direct is taken. ${t.winograd.time}.`, $("rungs")]; }],
      () => [`"auto" picks for each layer what is known to be good for its sizes. For this network: ${rows.filter((r) => r.layer.groups && seen.layers[r.index].kernel).map((r) => `${r.layer.text} by ${seen.layers[r.index].kernel}`).join("; ")}.`, conv().row.element],
      async () => {
        const looks = await Promise.all(machine.kernels.map((by) => sight({ values: seen.values }, by))), apart = Math.max(...looks.flatMap((l) => l.probabilities.map((p, i) => Math.abs(p - looks[0].probabilities[i])))), t = await ladder();
        return [`All answer alike: the largest difference between two outputs is ${short(apart)}. Of those that do all products, the fastest here was ${["naive", "stride_groups", "im2col", "direct"].reduce((a, b) => (t[b].seconds < t[a].seconds ? b : a))}. Times vary a little from run to run; time them again below. Now the quiz.`, $("rungs")];
      },
    ], quiz: [
      () => { const list = convs(), { row, windows, taps, f, work } = list[any(list.length)]; return entry(`${named(row)} has ${grouped(windows)} places, windows of ${taps} numbers and ${f} filters. How many products does naive compute for one picture?`, work, `${grouped(windows)} × ${taps} × ${f} = ${grouped(work)}.`, row.element); },
      () => { const list = convs(), { row, windows, taps } = list[any(list.length)]; return choice(`${named(row)} has ${grouped(windows)} places and windows of ${taps} numbers. How many numbers does im2col copy for one picture?`, grouped(windows * taps), [grouped(windows), grouped(taps), "0"], `All ${grouped(windows)} windows of ${taps}: ${grouped(windows * taps)}. stride_groups copies as many, group by group.`, row.element); },
      () => { const { row, windows, taps, f } = big(); return choice(`And direct, for ${named(row)}: how many numbers of windows does it copy?`, "0", [grouped(windows * taps), grouped(windows), grouped(taps * f)], "None. It reads them where they lie: as many products, no copying. That is why it wins.", row.element); },
    ] },
  };
  const share = (value) => percent(value, value < 0.01 ? 4 : 2);
  const convs = () => rows.filter((r) => r.layer.text.startsWith("conv(")).map((r) => ({ ...sizes(r), work: times(r.layer.shape) * sizes(r).taps }));
  const big = () => convs().reduce((a, b) => (b.work > a.work ? b : a));
  // The page's table of times, which is measured once a network.
  async function ladder() {
    if (!$("rungs").firstChild) {
      $("ladder").click();
      await until(() => !$("ladder").disabled);
    }
    const list = [...$("rungs").querySelectorAll("tr")].slice(1).map((line) => {
      const cells = [...line.cells].map((cell) => cell.textContent), [time, beside] = cells.slice(-3);
      return { name: cells[0], time, beside: beside.replace(" ×", " times"), seconds: parseFloat(time) * (time.includes("ms") ? 1e-3 : 1e-6), isBest: line.className === "best" };
    });
    return { best: list.find((l) => l.isBest), ...Object.fromEntries(list.map((l) => [l.name, l])) };
  }
  // Answers that read alike are one.
  const choice = (text, right, wrong, why, mark) => ({ text, right, why, mark, options: [...new Set([right, ...wrong])].sort(() => Math.random() - 0.5) });
  const entry = (text, right, why, mark, within = 0) => ({ text, right, why, mark, within });

  // MARK: The page as a step needs it
  async function stage({ digit = lesson.digit ?? 0, kernel = machine.kernel, groups = false, slopes = false }) {
    closeExplain();
    if (polling) {
      await ask("stop");
      await until(() => !polling);
    }
    if (isTrial) {
      $("reset").click();
      await until(() => machine.is_original && $("progress").textContent === "");
      isTrial = isKept = false;
    }
    while (taken) {
      taken--;
      const answer = await ask("undo");
      if (!taken) await stepped(answer);
    }
    if (!machine.is_original && !isKept) throw { offer: "The network that is here now isn't the page's first one. The lessons go back to that one: what you trained or changed is lost then.", ways: [["Go back to the first network", back]] };
    if (!lesson.need[0]()) throw { offer: `This lesson needs ${lesson.need[1]}. The network here, ${machine.network}, doesn't have that. A small one that has can be trained now, in a few seconds.`, ways: [["Train a small one", grow]] };
    if (typeof digit === "function") digit = await digit();
    await until(() => !busy);
    $("number").value = digit % machine.test_images;
    $("kernels").value = kernels = kernel;
    $("shown").value = "values";
    if (showsGroups !== groups) $("groups").click();
    await load({ test: +$("number").value });
    if (lesson.wants) Object.assign(wish, { label: wanted(), isChosen: true });
    if (slopes) $("shown").value = "gradients";
    if (lesson.wants || slopes) {
      $("should").value = wish.label;
      await look();
    }
  }
  async function back() {
    isTrial = true;
    taken = 0;
  }
  async function grow() {
    const text = Object.values(machine.presets).find((t) => t === machine.presets.small) ?? "conv(16,3) maxpool(2) flatten relu(64) softmax(10)";
    await train(text.replace(/softmax\(\d+\)/, `softmax(${machine.classes.length})`), 0.003, "adam", 2);
    [isTrial, isKept] = [false, true];
  }

  // MARK: The panel
  const text = make("div", { id: "lesson-text", tabindex: "-1", "aria-live": "polite" }), where = make("b", { id: "lesson-where" }), answers = make("div", { class: "row", id: "lesson-answers" });
  const backwards = make("button", { id: "lesson-back", onclick: () => go(number - 1) }, "Back"), forwards = make("button", { id: "lesson-next", class: "main", onclick: () => (number < 13 ? go(number + 1) : close()) }, "Next");
  const panel = make("section", { id: "lesson", "aria-labelledby": "lesson-title", hidden: true }, make("button", { class: "close", id: "lesson-close", "aria-label": "Close the lesson", onclick: () => close() }, "✕"), make("h2", { id: "lesson-title" }), text, answers, make("div", { class: "row" }, backwards, forwards, where));
  document.body.append(panel);
  panel.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && $("explain").hidden) close();
    if (event.target.tagName === "INPUT") return;
    if (event.key === "ArrowRight" && number < 13) go(number + 1);
    if (event.key === "ArrowLeft" && number > 1) go(number - 1);
  });
  function show(words, isNew) {
    text.replaceChildren(...[words].flat());
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
      const found = await run();
      if (mine !== turn) return;
      if (isQuiz) question(found);
      else show(found[0], true);
      const mark = isQuiz ? found.mark : found[1];
      if (mark) point(mark);
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
      reply.textContent = `${isRight ? "✓ Right." : `✗ Not quite: it is ${typeof right === "number" ? right : right}.`} ${why}${number === 13 ? ` You had ${score} of 3.` : ""}`;
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
    point(null);
    panel.hidden = true;
    document.body.classList.remove("lesson");
    if (showsGroups) $("groups").click();
    $("lessons").querySelector(`[data-lesson="${lesson?.name}"]`)?.focus();
    // What a step trained or took goes back; what the pupil did stays.
    if (isTrial || taken) tell((async () => { await until(() => !working); working++; try { await stage({}).catch((error) => { if (!error.offer) throw error; }); } finally { working--; } })());
  }
  function open(name, step = 1) {
    if (!(name in all10)) throw refusal(`no such lesson: ${name}; expected: ${Object.keys(all10).join(", ")}`);
    lesson = { name, ...all10[name] };
    $("lesson-title").textContent = lesson.title;
    panel.hidden = false;
    document.body.classList.add("lesson");
    text.focus({ preventScroll: true });
    return go(step);
  }
  $("lesson-list").append(...Object.entries(all10).map(([name, { title }], i) => make("button", { "data-lesson": name, onclick: () => tell(open(name)) }, `${i + 1}. ${title}`)));
  $("lessons").hidden = false;
  // Another network, by somebody else: nothing of what was kept holds.
  views.push({ built() { hardest = null; if (!working) isKept = isTrial = false; } });
  return { open };
})();
