// SPDX-License-Identifier: MIT
// The questions of the page, answered without a server by a network in the page's file: the same
// answers, by name and shape, as those of `stridenet serve` (Sources/Web).

// MARK: What is in the file
async function inflate(text) {
  const data = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Response(new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
}
async function unpack(packed) {
  const set = async ({ count, pixels, labels }) => ({ count, pixels: new Uint8Array(await inflate(pixels)), labels: new Uint16Array(await inflate(labels)) });
  return {
    ...packed, train: await set(packed.train), test: await set(packed.test),
    weights: new Float32Array(await inflate(packed.weights)), module: await WebAssembly.compile(await inflate(packed.kernels)),
  };
}

// MARK: Drawings become images, as Picture.swift makes them
// The mean of what each new pixel covers; where it covers less than one, between two.
function resized(x, [h, w], channels, [newH, newW]) {
  const shares = (from, to) => Array.from({ length: to }, (_, i) => {
    const step = from / to, [start, end] = [i * step, (i + 1) * step];
    if (step < 1) {
      const place = Math.max(0, Math.min(from - 1, (start + end) / 2 - 0.5)), first = Math.min(Math.floor(place), Math.max(0, from - 2));
      return from === 1 ? [[0, 1]] : [[first, 1 - place + first], [first + 1, place - first]];
    }
    return Array.from({ length: Math.min(from, Math.ceil(end)) - Math.floor(start) }, (_, j) => [Math.floor(start) + j, (Math.min(end, Math.floor(start) + j + 1) - Math.max(start, Math.floor(start) + j)) / step]);
  });
  const [rows, columns] = [shares(h, newH), shares(w, newW)], result = new Float32Array(newH * newW * channels);
  for (let p = 0; p < newH; p++)
    for (const [y, down] of rows[p])
      for (let q = 0; q < newW; q++)
        for (const [x_, right] of columns[q])
          for (let c = 0; c < channels; c++) result[(p * newW + q) * channels + c] += down * right * x[(y * w + x_) * channels + c];
  return result;
}

// Light ink on black, without what is too faint to be ink, and no larger than it is.
function inkOf({ width, height, pixels }) {
  const edge = [], grey = new Float32Array(pixels).map((p) => p / 255);
  for (let x = 0; x < width; x++) edge.push(grey[x], grey[(height - 1) * width + x]);
  for (let y = 0; y < height; y++) edge.push(grey[y * width], grey[(y + 1) * width - 1]);
  const paper = Float32Array.from(edge).sort()[edge.length / 2], sign = paper > 0.5 ? -1 : 1;
  const ink = grey.map((p) => sign * (p - paper)), most = ink.reduce((a, b) => Math.max(a, b));
  if (!(most > 0.1)) refuse("nothing is drawn", `pixels that differ by ${Math.max(0, Math.floor(most * 255))} of 255`, "a digit");
  let [top, bottom, left, right] = [height, -1, width, -1];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      if (!(ink[y * width + x] > most / 30)) continue;
      top = Math.min(top, y);
      bottom = y;
      left = Math.min(left, x);
      right = Math.max(right, x);
    }
  const [h, w] = [bottom - top + 1, right - left + 1], values = new Float32Array(h * w);
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) values[y * w + x] = Math.max(0, ink[(top + y) * width + left + x]) / most;
  return { values, h, w };
}

// Digits are fitted into 20/28 of the image and centred by mass, as MNIST's are.
function digit(drawing, [height, width]) {
  const { values, h, w } = inkOf(drawing), scale = (Math.min(height, width) * 20) / 28 / Math.max(h, w);
  const size = [Math.max(1, Math.round(h * scale)), Math.max(1, Math.round(w * scale))], small = resized(values, [h, w], 1, size);
  let [mass, down, right] = [0, 0, 0];
  small.forEach((value, i) => {
    mass += value;
    down += value * Math.floor(i / size[1]);
    right += value * (i % size[1]);
  });
  const start = (length, centre, extent) => Math.max(0, Math.min(length - extent, Math.round(length / 2 - centre)));
  const [top, left] = [start(height, down / mass, size[0]), start(width, right / mass, size[1])], result = new Float32Array(height * width);
  small.forEach((value, i) => { result[(top + Math.floor(i / size[1])) * width + left + (i % size[1])] = Math.min(1, value); });
  return result;
}

function fitted(drawing, [h, w, c], fit) {
  const bytes = (values) => values.map((value) => Math.round(255 * value) / 255);
  if (c === 1 && !fit) return digit(drawing, [h, w]);
  if (fit === "digits") return bytes(digit(drawing, [h, w]));
  const size = [drawing.height, drawing.width];
  let part = Float32Array.from(drawing.pixels, (p) => p / 255), result = new Float32Array(h * w);
  if (fit === "pad") {
    const scale = Math.min(h / size[0], w / size[1]), inner = [Math.max(1, Math.round(size[0] * scale)), Math.max(1, Math.round(size[1] * scale))];
    const small = resized(part, size, 1, inner), [top, left] = [Math.floor((h - inner[0]) / 2), Math.floor((w - inner[1]) / 2)];
    small.forEach((value, i) => { result[(top + Math.floor(i / inner[1])) * w + left + (i % inner[1])] = value; });
  } else {
    if (fit !== "stretch") {
      const cut = [Math.min(size[0], Math.floor((size[1] * h) / w)), Math.min(size[1], Math.floor((size[0] * w) / h))];
      const [top, left] = [Math.floor((size[0] - cut[0]) / 2), Math.floor((size[1] - cut[1]) / 2)], whole = part, across = size[1];
      part = Float32Array.from({ length: cut[0] * cut[1] }, (_, i) => whole[(top + Math.floor(i / cut[1])) * across + left + (i % cut[1])]);
      size.splice(0, 2, ...cut);
    }
    result = resized(part, size, 1, [h, w]);
  }
  return bytes(Float32Array.from({ length: h * w * c }, (_, i) => result[Math.floor(i / c)]));
}

// MARK: What a value is made of, as Wiring.swift has it
function wiring(network, o, output, x) {
  if (o.kind === "residual") return null;
  const [h, w, c] = o.input, [, ow, channels] = o.output, channel = output % channels, column = Math.floor(output / channels) % ow, row = Math.floor(output / (channels * ow));
  const [weight, bias] = o.parameters.map((p) => network.k.floats(p.value, p.count)), links = [];
  switch (o.kind) {
    case "conv": {
      const deep = c / o.groups, first = Math.floor(channel / (o.filters / o.groups)) * deep;
      for (let i = 0; i < o.size[0]; i++)
        for (let j = 0; j < o.size[1]; j++) {
          const y = row * o.stride[0] + i * o.dilation[0] - o.start[0], x_ = column * o.stride[1] + j * o.dilation[1] - o.start[1];
          if (y < 0 || y >= h || x_ < 0 || x_ >= w) continue;
          for (let k = 0; k < deep; k++) links.push([(y * w + x_) * c + first + k, weight[((i * o.size[1] + j) * deep + k) * o.filters + channel]]);
        }
      return { kind: "weighted sum", links, bias: bias[channel] };
    }
    case "dense":
      for (let i = 0; i < c; i++) links.push([i, weight[output * c + i]]);
      return { kind: "weighted sum", links, bias: bias[output] };
    case "maxpool": case "avgpool": case "globalavgpool": {
      // What a window has of the image, and what counts in a mean: the image's, or with its padding.
      const top = row * o.stride[0] - o.start[0], left = column * o.stride[1] - o.start[1], reach = (from, size, least, most) => Math.min(from + size, most) - Math.max(from, least);
      const counted = o.counted[0] ? reach(top, o.size[0], -o.start[0], o.counted[0] - o.start[0]) * reach(left, o.size[1], -o.start[1], o.counted[1] - o.start[1]) : reach(top, o.size[0], 0, h) * reach(left, o.size[1], 0, w);
      for (let y = Math.max(0, top); y < Math.min(h, top + o.size[0]); y++) for (let x_ = Math.max(0, left); x_ < Math.min(w, left + o.size[1]); x_++) links.push([(y * w + x_) * c + channel, 1 / counted]);
      if (o.kind !== "maxpool") return { kind: "mean", links, bias: 0 };
      // The first largest, as in training.
      const [best] = links.reduce((best, link) => (x[link[0]] > x[best[0]] ? link : best));
      return { kind: "largest", links: links.map(([from]) => [from, from === best ? 1 : 0]), bias: 0 };
    }
    case "batchnorm": {
      const [scale, shift] = network.factors(o).map((row) => network.k.floats(row, c)[channel]);
      return { kind: "normalised", links: [[output, scale]], bias: shift };
    }
    case "layernorm": {
      const pixel = x.subarray(output - channel, output - channel + c), mean = pixel.reduce((a, b) => a + b, 0) / c;
      const scale = weight[channel] / Math.sqrt(pixel.reduce((sum, value) => sum + (value - mean) ** 2, 0) / c + o.epsilon);
      return { kind: "normalised", links: [[output, Math.fround(scale)]], bias: Math.fround(bias[channel] - mean * scale) };
    }
    default: return { kind: "taken over", links: [[output, 1]], bias: 0 };
  }
}

// The strongest paths from the image to one output, as StrongestPaths.swift finds them.
function strongestPaths(network, inputs, output, width = 8) {
  const paths = [];
  let relevance = [[output, 1]];
  for (let number = network.operations.length; number >= 1; number--) {
    const x = inputs[number - 1], below = new Map(), edges = [];
    for (const [index, share] of relevance) {
      // Not through residual connections.
      const links = wiring(network, network.operations[number - 1], index, x)?.links ?? [], added = links.map(([from, factor]) => Math.max(0, factor * x[from]));
      const sum = added.reduce((a, b) => a + b, 0);
      if (sum > 0) links.forEach(([from], i) => {
        if (added[i] === 0) return;
        const part = (share * added[i]) / sum;
        below.set(from, (below.get(from) ?? 0) + part);
        edges.push({ layer: number, to: index, from, share: part });
      });
    }
    relevance = [...below].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, width);
    const kept = new Set(relevance.map(([index]) => index));
    paths.push(...edges.filter((edge) => kept.has(edge.from)));
  }
  return paths;
}

// MARK: Questions
class Workbench {
  constructor(file) {
    this.file = file;
    this.training = { is_running: false, points: [], epochs: [], seconds: 0 };
    this.reset();
  }
  // A network with its memory, which goes when another takes its place.
  network(text) { return new Network(this.file.module, text, this.file.input, this.file.normalization); }
  exchange(network) {
    this.current = network;
    this.seconds = {};
    this.features = null;
    // Weights before each step from an image.
    this.steps = [];
  }
  names(count) { return Array.from({ length: count }, (_, i) => this.file.classes[i] ?? String(i)); }
  set({ train, test }) { return test != null ? [this.file.test, test] : [this.file.train, train]; }

  image(input) {
    const { input: shape, fit } = this.file, size = product(shape);
    if (input?.drawing) return { values: fitted(input.drawing, shape, fit), label: null };
    if (input?.values) return { values: input.values, label: null };
    const [set, index] = this.set(input ?? {});
    if (!(Number.isInteger(index) && index >= 0 && index < set.count)) refuse("no image of that number", index, `0 … ${set.count - 1}`);
    return { values: Float32Array.from(set.pixels.subarray(index * size, (index + 1) * size), (p) => p / 255), label: set.labels[index] };
  }
  pixels(set, index) {
    const size = product(this.file.input);
    return set.pixels.slice(index * size, (index + 1) * size);
  }
  with(kernels) {
    const network = this.current;
    if (kernels && !network.variants.includes(kernels)) refuse("no kernel variant of that name", `'${kernels}'`, network.variants.join(", "));
    network.kernels = kernels ?? "auto";
    return network;
  }

  state() {
    const n = this.current, { file } = this, filters = n.parameters[0], first = n.operations.findIndex((o) => o.parameters.length), o = n.operations[first];
    const trained = (list) => list.reduce((sum, p) => sum + (p.isTrained ? p.count : 0), 0);
    const groups = (o) => [0, 1].map((i) => Math.min(Math.ceil(((o.size[i] - 1) * (o.dilation?.[i] ?? 1) + 1) / o.stride[i]), o.output[i]));
    const presets = Object.entries(file.presets).filter(([, text]) => { try { return parse(text); } catch { return false; } });
    // Filters can be seen as pictures, and dense weights over the image itself, of up to 64 outputs.
    const isDense = o?.kind === "dense" && n.operations.slice(0, first).every(({ kind }) => ["flatten", "dropout"].includes(kind)), isSeen = isDense || o?.kind === "conv";
    const shown = isDense ? Math.min(64, o.outputs) : o?.filters;
    return {
      network: n.text, parameters: trained(n.parameters), input: file.input,
      layers: n.operations.map((o) => ({ text: o.text, shape: o.output, parameters: trained(o.parameters), groups: o.shape ? groups(o) : null, window: o.shape ? o.size : null, stride: o.shape ? o.stride : null, start: o.shape ? o.start ?? [0, 0] : null, dilation: o.shape ? o.dilation ?? [1, 1] : null })),
      fit: file.fit ?? (file.input[2] === 1 ? "digits" : "crop"), classes: this.names(n.classes), kernels: n.variants, has_probabilities: n.endsInSoftmax, kernel: "auto", isa: "WebAssembly with vectors of 4 numbers", data: file.data,
      train_images: file.train.count, test_images: file.test.count, presets: Object.fromEntries(presets), is_original: n === this.original && !this.steps.length, is_training: this.training.is_running,
      filters: isSeen ? n.k.floats(filters.value, isDense ? shown * product(file.input) : filters.count).slice() : new Float32Array(0),
      filter_shape: !isSeen ? [] : isDense ? [shown, ...file.input] : filters.shape, filter_count: isSeen ? filters.shape.at(isDense ? 0 : -1) : 0, nearest_among: file.train.count,
    };
  }

  // Runs an image through the layers and keeps what each made of it; of the last softmax, the logits too.
  trace(values, kernels) {
    const n = this.with(kernels);
    n.load(values, 0, 1);
    const inputs = [n.k.floats(n.first, product(n.input)).slice()];
    let logits = null;
    for (const o of n.operations) {
      n.step(o, 1, false, true);
      if (o.activation === "softmax") {
        logits = n.output(o, 1).slice();
        n.k.c.ck_softmax_forward(logits.length / o.output[2], o.output[2], o.y, o.y);
      }
      inputs.push(n.output(o, 1).slice());
    }
    return { network: n, inputs, logits };
  }
  // How long each layer takes with the kernels in use: the least of all means so far over a millisecond's
  // runs, as the clock ticks ten times in that, and code is compiled anew once it turns out to be hot.
  // Each look adds to what is known of one layer.
  time(n, rounds) {
    const known = (this.seconds[n.kernels] ??= { looks: 0, least: n.operations.map((o) => (o.kind === "flatten" ? 0 : Infinity)) });
    const turn = known.looks++ % n.operations.length;
    n.operations.forEach((o, i) => {
      for (let round = 0; round < rounds || known.least[i] === Infinity || (round < 1 && i === turn); round++) {
        n.step(o, 1);
        const began = performance.now();
        let runs = 0, passed;
        do {
          n.step(o, 1);
          runs++;
        } while ((passed = performance.now() - began) < 1);
        known.least[i] = Math.min(known.least[i], passed / runs / 1000);
      }
    });
    return known.least;
  }
  look({ input, kernels, paths = true, toward, measure = false }) {
    const { values, label } = this.image(input), { network: n, inputs, logits } = this.trace(values, kernels), output = inputs.at(-1);
    if (!output.every(Number.isFinite)) refuse("what the network makes of it is no finite number", undefined, undefined, "a training that goes wrong says so; try a tenth of its learning rate");
    const seconds = this.time(n, measure ? 20 : 0), target = toward ?? output.indexOf(Math.max(...output));
    if (!(target in output)) refuse("no such class", target, `0 … ${output.length - 1}`);
    return {
      input: values, label, probabilities: [...output], logits: n.endsInSoftmax ? [...logits] : null, layers: n.operations.map((o, i) => ({ output: inputs[i + 1], seconds: seconds[i], kernel: n.kernel(o), why: null })),
      paths: paths ? strongestPaths(n, inputs, target) : [], seconds: seconds.reduce((a, b) => a + b, 0), weights: n.generation,
    };
  }

  provenance({ input, layer, at, kernels }) {
    const { network: n, inputs, logits } = this.trace(this.image(input).values, kernels), o = n.operations[layer - 1];
    if (!o) refuse("no such layer", layer, `1 … ${n.operations.length}`);
    if (at.length !== 3 || at.some((place, i) => !(place >= 0 && place < o.output[i]))) refuse("no such place", at.join(", "), `within ${o.output.join("×")}, each from 0`);
    const place = (index, [, w, c]) => [Math.floor(index / (w * c)), Math.floor(index / c) % w, index % c];
    const x = inputs[layer - 1], index = (at[0] * o.output[1] + at[1]) * o.output[2] + at[2], { kind, links, bias } = wiring(n, o, index, x) ?? { kind: "both sides", bias: 0 };
    const terms = links
      ? links.map(([from, factor]) => ({ from: place(from, o.input), value: x[from], factor, product: factor && x[from] * factor }))
      : o.sides.map((side) => n.k.floats(side, product(o.output))[index]).map((value) => ({ from: at, value, factor: 1, product: value }));
    const total = (list) => list.reduce((sum, t) => sum + t.product, 0), sum = total(terms) + bias, value = (o.activation === "softmax" ? logits : inputs[layer])[index];
    const result = ["none", "softmax"].includes(o.activation) ? sum : applied(o, sum);
    const sizes = terms.reduce((all, t) => all + Math.abs(t.product), Math.abs(bias)), tolerance = 2 * (terms.length + 2) * 2 ** -24 * sizes + 2 ** -20 * Math.abs(result);
    const sorted = terms.length > 300 ? [...terms].sort((a, b) => Math.abs(b.product) - Math.abs(a.product)) : terms, others = sorted.splice(300);
    return { kind, activation: o.activation, terms: sorted, others: others.length, rest: total(others), bias, kernel: value, sum, result, agrees: Math.abs(result - value) <= tolerance };
  }

  // What a text of layers makes of the images, layer by layer.
  plan({ layers: text }) {
    const answer = { layers: [], error: null };
    let layers, shape = this.file.input;
    try { layers = parse(text); } catch (error) { return { ...answer, error: { index: null, message: error.message } }; }
    for (const [index, layer] of layers.entries())
      try {
        const [o] = plan([layer], shape);
        shape = o.output;
        answer.layers.push({ text: layer.text, shape, parameters: o.parameters.reduce((sum, p) => sum + (p.isTrained ? p.count : 0), 0) });
      } catch (error) { return { ...answer, error: { index, message: error.message } }; }
    return answer;
  }

  // Of one filter or output after the other the weights, in the order in which the definition adds them.
  weights({ layer, first = 0, count = 1 }) {
    const n = this.current, o = n.operations[layer - 1] ?? refuse("no such layer", layer, `1 … ${n.operations.length}`), outputs = o.output[2];
    const answer = { activation: o.activation, slope: o.slope ?? 0, values: new Float32Array(0), bias: [], divisors: [], weights: n.generation };
    if (o.kind === "conv" || o.kind === "dense") {
      if (!(first >= 0 && count >= 1 && first + count <= outputs)) refuse("no such filters", `${count} from ${first} on`, `within 0 ..< ${outputs}`);
      const [weight, bias] = o.parameters.map((p) => n.k.floats(p.value, p.count)), size = weight.length / outputs;
      answer.values = Float32Array.from({ length: count * size }, (_, i) => weight[o.kind === "dense" ? first * size + i : (i % size) * outputs + first + Math.floor(i / size)]);
      answer.bias = [...bias.subarray(first, first + count)];
    } else if (o.kind.endsWith("avgpool")) answer.divisors = Array.from({ length: product(o.output.slice(0, 2)) }, (_, i) => Math.round(1 / wiring(n, o, i * outputs).links[0][1]));
    return answer;
  }

  nearest({ input }) {
    const hidden = this.current.operations.at(-2) ?? refuse("a network of one layer has no hidden one"), { values } = this.image(input), { train } = this.file;
    const mine = this.trace(values).inputs.at(-2), n = this.current, size = mine.length;
    if (this.features?.generation !== n.generation) {
      const all = new Float32Array(train.count * size);
      n.predict(train.pixels, train.count, 1 / 255, (first, count) => all.set(n.output(hidden, count), first * size));
      this.features = { generation: n.generation, all };
    }
    const { all } = this.features, distances = Array.from({ length: train.count }, (_, i) => {
      let sum = 0;
      for (let j = 0; j < size; j++) sum += (all[i * size + j] - mine[j]) ** 2;
      return [Math.sqrt(sum), i];
    });
    return distances.sort((a, b) => a[0] - b[0] || a[1] - b[1]).slice(0, 12).map(([distance, index]) => ({ index, distance, label: train.labels[index], pixels: this.pixels(train, index) }));
  }

  // What the last hidden layer makes of the first test images, and what they are taken for.
  hidden() {
    const hidden = this.current.operations.at(-2) ?? refuse("a network of one layer has no hidden one"), n = this.with(), { test } = this.file, count = Math.min(1000, test.count), size = product(hidden.output), values = new Float32Array(count * size), guesses = [];
    n.predict(test.pixels, count, 1 / 255, (first, some) => {
      values.set(n.output(hidden, some), first * size);
      const all = n.output(n.operations.at(-1), some);
      for (let i = 0; i < some; i++) { const output = all.subarray(i * n.classes, (i + 1) * n.classes); guesses.push(output.indexOf(Math.max(...output))); }
    });
    return { values, size, labels: [...test.labels.subarray(0, count)], guesses, of: test.count, weights: n.generation };
  }

  wrong() {
    const n = this.with(), { test } = this.file, found = [];
    n.predict(test.pixels, test.count, 1 / 255, (first, count) => {
      const all = n.output(n.operations.at(-1), count);
      for (let i = 0; i < count; i++) {
        const output = all.subarray(i * n.classes, (i + 1) * n.classes), probability = Math.max(...output), guess = output.indexOf(probability), index = first + i;
        if (guess !== test.labels[index]) found.push({ index, label: test.labels[index], guess, probability });
      }
    });
    found.sort((a, b) => b.probability - a.probability || a.index - b.index);
    return { count: found.length, of: test.count, images: found.slice(0, 120).map((image) => ({ ...image, pixels: this.pixels(test, image.index) })) };
  }

  // MARK: Backwards
  // The loss of an image that should have been of some class, and its slope for each layer's outputs.
  gradients(question) {
    const n = this.current, { statistics } = n;
    try {
      return this.backwards(question);
    } finally { n.statistics = statistics; }
  }
  backwards({ input, label, kernels }) {
    const { values } = this.image(input), n = this.with(kernels), maps = new Map();
    if (!(Number.isInteger(label) && label >= 0 && label < n.classes)) refuse("no such class", label, `0 … ${n.classes - 1}`);
    n.reserve(1, true, true);
    n.load(values, 0, 1);
    const copy = (at, shape) => n.k.floats(at, product(shape)).slice();
    const { loss } = n.backward(1, [label], true, (o) => maps.set(o, copy(o.dy, o.output)));
    return { loss, input: copy(n.imageGradient, n.input), layers: n.operations.map((o) => maps.get(o)) };
  }
  // One step of gradient descent from an image, which can be undone.
  step({ learning_rate = 0.01, ...question }) {
    const t = this.training, n = this.current;
    if (t.is_running) refuse("a training is under way", undefined, undefined, "stop it, or wait until it is done");
    if (!(learning_rate > 0 && Number.isFinite(learning_rate))) refuse("learning rate out of range", learning_rate, "a finite number above 0");
    if (this.steps.length >= Math.min(1000, 5e7 / n.count)) refuse("too many steps from images", this.steps.length, undefined, "undo some, or go back to the first network");
    const before = n.values, { loss } = this.backwards(question);
    this.steps.push(before);
    n.update({ kernel: "sgd", momentum: 0 }, learning_rate, 1);
    return { loss, steps: this.steps.length };
  }
  undo() {
    if (this.steps.length) this.current.values = this.steps.pop();
    return { steps: this.steps.length };
  }

  // MARK: Training
  train({ layers, learning_rate = 0.05, batch_size = 64, epochs = 5, optimizer = "sgd", augment = "", kernels, seed = 1, film }) {
    if (this.training.is_running) refuse("a training is under way", undefined, undefined, "stop it, or wait until it is done");
    const { train, test } = this.file;
    if (!(Number.isInteger(epochs) && epochs >= 1 && epochs <= 1000)) refuse("epochs out of range", epochs, "1 … 1000");
    if (!(Number.isInteger(batch_size) && batch_size >= 1)) refuse("batch size out of range", batch_size, "at least 1");
    if (!(learning_rate > 0 && Number.isFinite(learning_rate))) refuse("learning rate out of range", learning_rate, "a finite number above 0");
    if (!(optimizer in optimizers)) refuse("no optimiser of that name", `'${optimizer}'`, Object.keys(optimizers).join(", "));
    const changes = augmentation(augment), network = this.network(layers ?? this.current.text), largest = [train, test].reduce((most, set) => set.labels.reduce((a, b) => Math.max(a, b), most), 0);
    if (!network.endsInSoftmax) refuse("training here needs probabilities", network.text, "a last layer with softmax");
    if (largest >= network.classes) refuse("a label that the network has no output for", largest, `at most ${network.classes - 1}`);
    network.initialize(seed);
    if (kernels && !network.variants.includes(kernels)) refuse("no kernel variant of that name", `'${kernels}'`, network.variants.join(", "));
    const batch = Math.min(batch_size, train.count), pinned = film && this.image(film).values;
    network.reserve(Math.max(batch, 100), true);
    this.exchange(network);
    this.batches = trainingSteps(network, this.file, { epochs, batch, rate: learning_rate, optimizer, changes, seed });
    this.training = { is_running: true, kernels, points: [], epochs: [], seconds: 0, sums: [0, 0, 0], last: performance.now(), began: performance.now(), moments: [], pinned, settings: { layers: network.text, learning_rate, batch_size: batch, epochs, optimizer, augment, kernels: kernels ?? "auto", seed } };
    // As in Session.swift: at most 59 moments between and 60 at the ends of epochs.
    const batches = Math.ceil(train.count / batch), ends = (epoch) => epoch % Math.ceil(epochs / 60) === 0 || epoch === epochs;
    this.training.every = Math.max(Math.ceil((epochs * batches) / 59), Math.ceil(200 / batch));
    // Whether a step has one of the first kind, an epoch one of the second: no step has both.
    this.training.hasMoment = ({ step, epoch }) => (epoch ? ends(epoch) : step % this.training.every === 0 && !(step % batches === 0 && ends(step / batches)));
    if (pinned) this.moment(0);
    return this.progress();
  }
  // Goes on training for some milliseconds; false where there is nothing to train.
  work(milliseconds) {
    const t = this.training, until = performance.now() + milliseconds;
    if (!t.is_running) return false;
    this.with(t.kernels);
    try {
      do {
        const { done, value } = this.batches.next();
        if (done) {
          this.flush();
          t.is_running = false;
          break;
        }
        if (value.epoch) {
          const { confusion, ...epoch } = value;
          if (t.pinned && t.hasMoment(value)) this.moment(epoch.step, { loss: epoch.test_loss, error: epoch.test_error, confusion, images: this.file.test.count });
          t.epochs.push(epoch);
        } else {
          this.point(value);
          if (t.pinned && t.hasMoment(value)) this.moment(value.step);
        }
      } while (performance.now() < until);
    } catch (error) {
      t.failure = error.message;
      t.is_running = false;
    }
    t.seconds = (performance.now() - t.began) / 1000;
    return t.is_running;
  }
  // More and more seldom, so that there are never many.
  point({ step, loss, error, rate }) {
    const t = this.training, now = performance.now();
    t.sums = [t.sums[0] + loss, t.sums[1] + error, t.sums[2] + 1];
    t.latest = { step, rate };
    if (now - t.last >= Math.max(60, (now - t.began) / 5000)) this.flush(now);
  }
  // The mean of what came since the last point: at the end, too, however soon that is.
  flush(now = performance.now()) {
    const t = this.training, [loss, error, count] = t.sums;
    if (count) t.points.push({ ...t.latest, loss: loss / count, error: error / count });
    [t.sums, t.last] = [[0, 0, 0], now];
  }
  // What the network is at a step: on the first 100 test images, unless that is known of all, and with
  // the image that the training's film is about. Maps and filters are in bytes as in TrainingRecord.swift.
  moment(step, judged = { ...evaluate(this.current, this.file.test, 100), images: Math.min(100, this.file.test.count) }) {
    const t = this.training, { inputs } = this.trace(t.pinned, t.kernels);
    if (!inputs.every((values) => values.every(Number.isFinite))) return;
    const maps = this.current.operations.map((o, i) => coarseMap(inputs[i + 1], o.output));
    t.moments.push({ step, ...judged, probabilities: [...inputs.at(-1)], maps, ...filterPictures(this.state(), this.current.operations.find((o) => o.parameters.length)?.kind === "dense"), input: step === 0 ? t.pinned : null });
  }
  progress(since = 0, had = 0) {
    const { is_running, failure, points, epochs, seconds, moments = [], settings = null } = this.training, { filters, filter_shape } = this.state();
    return { is_running, failure, points: points.slice(since), epochs, seconds, filters, filter_shape, settings, moments: moments.slice(had) };
  }
  stop() {
    this.training.is_running = false;
    return this.progress();
  }
  reset() {
    this.training = { is_running: false, points: [], epochs: [], seconds: 0 };
    this.original = this.network(this.file.network);
    this.original.values = this.file.weights;
    this.exchange(this.original);
    return this.state();
  }

  answer(name, question) {
    switch (name) {
      case "state": return this.state();
      case "training": return this.progress(question.since, question.moments);
      case "look": case "plan": case "hidden": case "weights": case "provenance": case "nearest": case "wrong": case "gradients": case "step": case "undo": case "train": case "stop": case "reset": return this[name](question);
      default: refuse("no such question", name);
    }
  }
}

// A layer's values in bytes, 0 for the least and 255 for the greatest: of large maps every so many rows
// and columns, and not all channels.
function coarseMap(values, [h, w, n]) {
  let coarse = 1;
  while (Math.floor(h / coarse) * Math.floor(w / coarse) > 6000) coarse++;
  const [height, width] = [h, w].map((size) => Math.max(1, Math.floor(size / coarse))), channels = Math.max(1, Math.min(n, h * w === 1 ? 256 : 8, Math.floor(6000 / (height * width))));
  const [least, greatest] = values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]), scale = greatest > least ? 255 / (greatest - least) : 0;
  const pixels = Uint8Array.from({ length: height * width * channels }, (_, i) => {
    const c = i % channels, x = Math.floor(i / channels) % width, y = Math.floor(i / (channels * width));
    return Math.round((values[(y * coarse * w + x * coarse) * n + Math.floor((c * n) / channels)] - least) * scale);
  });
  return { least, greatest, height, width, channels, pixels };
}
// Each filter's weights or those of up to 64 outputs as a picture in bytes, 128 for 0: the mean over the
// channels of what it looks at.
function filterPictures({ filters, filter_shape: s }, dense) {
  if (!s.length) return { filters: new Uint8Array(0), filter_shape: [], filter_count: 0, filter_depth: 0 };
  const [count, h, w, depth] = dense ? s : [s[3], s[0], s[1], s[2]];
  const shown = Math.max(1, Math.min(dense ? Math.min(64, count) : count, Math.floor(75000 / (h * w))));
  const means = Float32Array.from({ length: shown * h * w }, (_, i) => {
    const f = Math.floor(i / (h * w)), pixel = i % (h * w);
    let sum = 0;
    for (let c = 0; c < depth; c++) sum += filters[dense ? (f * h * w + pixel) * depth + c : (pixel * depth + c) * count + f];
    return sum / depth;
  });
  const greatest = means.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
  return { filters: Uint8Array.from(means, (v) => 128 + Math.round(greatest && (v * 127) / greatest)), filter_shape: [shown, h, w], filter_count: count, filter_depth: depth };
}

// What an activation makes of one sum, in double precision.
function applied({ activation, slope }, x) {
  switch (activation) {
    case "relu": return Math.max(0, x);
    case "leaky_relu": return x > 0 ? x : slope * x;
    case "elu": return x > 0 ? x : Math.expm1(x);
    case "sigmoid": return 1 / (1 + Math.exp(-x));
    case "tanh": return Math.tanh(x);
    case "softplus": return Math.max(0, x) + Math.log1p(Math.exp(-Math.abs(x)));
    case "silu": return x / (1 + Math.exp(-x));
    default: return (x / 2) * (1 + erf(x / Math.SQRT2));
  }
}
// Its series, which converges everywhere; beyond 6 it is ±1 in double precision.
function erf(x) {
  if (Math.abs(x) > 6) return Math.sign(x);
  let sum = x;
  for (let n = 1, term = x; n < 200; n++) sum += (term *= (2 * x * x) / (2 * n + 1));
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

// MARK: In a worker: messages are [number, name, question]; the first one is the file.
if (typeof DedicatedWorkerGlobalScope !== "undefined") {
  let workbench = null;
  // Between two parts of a training there is time for questions.
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => { if (workbench.work(20)) port2.postMessage(0); };
  onmessage = async ({ data: [number, name, question] }) => {
    try {
      if (name === "open") workbench = new Workbench(await unpack(question).catch((error) => refuse("this browser can't run the kernels", error.message, "one of 2023 or later: WebAssembly with SIMD, DecompressionStream")));
      postMessage([number, name === "open" ? true : workbench.answer(name, question)]);
      if (name === "train") port2.postMessage(0);
    } catch (error) {
      postMessage([number, null, error instanceof Refusal ? error.message : `${error.stack ?? error}`]);
    }
  };
}
