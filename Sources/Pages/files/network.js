// SPDX-License-Identifier: MIT
// A network above the kernels, which are the library's own, as WebAssembly: its text, its plan, its
// passes and its training. Shapes are [height, width, channels]; arrays lie in the module's memory
// and are places there.
"use strict";

// What the user can change.
class Refusal extends Error {}
function refuse(what, found, expected, hint) {
  throw new Refusal([what, found != null && `found: ${found}`, expected && `expected: ${expected}`, hint].filter(Boolean).join("; "));
}
const product = (numbers) => numbers.reduce((a, b) => a * b, 1);

// MARK: Text
const activations = ["none", "relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "softplus", "softmax"];
const grammar = {
  conv: ["filters", "size", "stride", "padding", "activation", "slope", "init", "dilation", "groups"],
  maxpool: ["size", "stride", "padding", "ceil_mode"],
  avgpool: ["size", "stride", "padding", "ceil_mode", "count_include_pad"],
  globalavgpool: [],
  flatten: [],
  dense: ["outputs", "activation", "slope", "init"],
  activation: ["activation", "slope"],
  batchnorm: ["activation", "momentum", "epsilon", "slope"],
  layernorm: ["epsilon"],
  dropout: ["rate"],
  residual: [],
};
for (const name of activations.slice(1)) grammar[name] = name === "leaky_relu" ? ["outputs", "slope", "init"] : ["outputs", "init"];

// The layers of a text such as "conv(16,5,stride=2) avgpool(2) flatten softmax(10)".
function parse(text) {
  let rest = text.trim(), depth = 0;
  const take = (mark) => rest[0] === mark && ((rest = rest.slice(1).trimStart()), true);
  const list = (ends) => {
    const layers = [];
    while (rest && !ends.includes(rest[0])) layers.push(one());
    return layers;
  };
  const one = () => {
    const [name] = rest.match(/^[^\s(),=|]*/), names = grammar[name];
    if (!names) refuse("unknown layer", `'${name || rest[0]}'`, Object.keys(grammar).join(", "));
    rest = rest.slice(name.length).trimStart();
    if (name === "residual") return residual();
    const [whole, inner] = rest.match(/^(?:\(([^()]*)\))?/);
    rest = rest.slice(whole.length);
    if (rest.startsWith("(")) refuse("a bracket that isn't closed", `'${rest.slice(0, 20)}'`, "')'");
    rest = rest.trimStart();
    const given = {}, parts = inner?.trim() ? inner.split(",").map((part) => part.trim()) : [];
    parts.forEach((part, i) => {
      const [key, value] = part.includes("=") ? part.split("=").map((word) => word.trim()) : [names[i], part];
      if (!names.includes(key)) refuse(key ? `unknown argument of ${name}` : `too many arguments for ${name}`, `'${part}'`, names.join(", ") || "none");
      if (!value) refuse(`no value for ${key}`, `'${part}'`, "a value");
      if (key in given) refuse(`${key} given twice`, `'${part}'`);
      given[key] = value;
    });
    return layer(name, given, parts.length ? `${name}(${parts.join(",")})` : name);
  };
  // (layers) or (layers | layers)
  const residual = () => {
    if (++depth > 100) refuse("residual connections nested too deeply", "more than 100");
    const opens = take("("), body = opens ? list("|)") : [], shortcut = take("|") ? list(")") : null;
    if (shortcut?.length === 0) refuse("a shortcut without layers", "'|'", "layers behind it");
    if (opens && !take(")")) refuse("a bracket that isn't closed", "'('", "')'");
    if (!body.length) refuse("a residual connection without layers", opens ? "'()'" : `'${rest.slice(0, 20)}'`, "residual(conv(32,3,padding=1,activation=none))");
    depth--;
    const side = (layers) => layers.map((layer) => layer.text).join(" ");
    return { kind: "residual", text: `residual(${side(body)}${shortcut ? ` | ${side(shortcut)}` : ""})`, body, shortcut: shortcut ?? [] };
  };
  const layers = list("");
  if (!layers.length) refuse("no layers", "an empty text", "conv(32,3) maxpool(2) flatten relu(100) softmax(10)");
  return layers;
}

function layer(name, given, text) {
  const must = (key) => given[key] ?? refuse(`${name} without ${key}`, `no ${key}`, `${name}(${grammar[name].join(",")})`);
  const whole = (value, key) => (/^\d+$/.test(value) && +value >= 1 && +value <= 1 << 24 ? +value : refuse(`${key} out of range`, `'${value}'`, `a whole number, 1 … ${1 << 24}`));
  const pair = (value, key) => {
    const numbers = value.split("x").map((part) => whole(part, key));
    return numbers.length <= 2 ? [numbers[0], numbers.at(-1)] : refuse(`${key} out of range`, `'${value}'`, "one number or two: 3x5");
  };
  const between = (key, least, most, usual) => {
    const value = +(given[key] ?? usual);
    return value >= least && value <= most ? value : refuse(`${key} out of range`, `'${given[key]}'`, `${least} … ${most}`);
  };
  const above0 = (key, most, usual, text) => {
    const value = +(given[key] ?? usual);
    return value > 0 && (value < 1 || value === most) ? value : refuse(`${key} out of range`, `'${given[key]}'`, `a number, above 0, ${text}`);
  };
  const epsilon = () => above0("epsilon", 0, 1e-5, "below 1");
  const truth = (key, usual) => ({ true: true, false: false, undefined: usual })[given[key]] ?? refuse(`${key} is neither true nor false`, `'${given[key]}'`, "true or false");
  const activation = (usual) => {
    const function_ = given.activation ?? usual;
    if (!activations.includes(function_)) refuse("unknown activation", `'${function_}'`, activations.join(", "));
    if ("slope" in given && function_ !== "leaky_relu") refuse("a slope without leaky_relu", `'${given.slope}'`, "activation=leaky_relu");
    return { activation: function_, slope: between("slope", 0, 1, 0.01) };
  };
  switch (name) {
    case "conv": return {
      kind: "conv", text, filters: whole(must("filters"), "filters"), size: pair(must("size"), "size"), stride: pair(given.stride ?? "1", "stride"),
      dilation: pair(given.dilation ?? "1", "dilation"), groups: whole(given.groups ?? "1", "groups"), padding: given.padding ?? "valid", init: given.init, ...activation("relu"),
    };
    case "maxpool": case "avgpool": return {
      kind: name, text, size: pair(must("size"), "size"), stride: pair(given.stride ?? given.size, "stride"), padding: given.padding ?? "valid",
      isCeiled: truth("ceil_mode", false), countsPadding: truth("count_include_pad", true),
    };
    case "batchnorm": return { kind: name, text, momentum: above0("momentum", 1, 0.1, "at most 1"), epsilon: epsilon(), ...activation("none") };
    case "layernorm": return { kind: name, text, epsilon: epsilon() };
    case "globalavgpool": case "flatten": return { kind: name, text };
    case "activation": return { kind: "activation", text, ...activation(must("activation")) };
    case "dropout": {
      must("rate");
      const rate = between("rate", 0, 1);
      return { kind: "dropout", text, rate: rate < 1 ? rate : refuse("rate out of range", "'1'", "0 up to, not with, 1") };
    }
    default: return { kind: "dense", text, outputs: whole(must("outputs"), "outputs"), init: given.init, ...activation(name === "dense" ? "none" : name) };
  }
}

// MARK: Plan
// Each layer with its shapes and parameters.
function plan(layers, input) {
  let shape = input;
  return layers.map((layer) => {
    const operation = { activation: "none", parameters: [], ...layer, input: shape, ...sizes(layer, shape) };
    shape = operation.output;
    return operation;
  });
}

function sizes(layer, [h, w, c]) {
  // Windows along an axis: where the first begins, how many there are, and how long it is with its padding.
  const axis = (i) => {
    const length = [h, w][i], stride = layer.stride[i], span = (layer.size[i] - 1) * (layer.dilation?.[i] ?? 1) + 1, given = padding(layer);
    const missing = Math.max(0, Math.floor((length - 1) / stride) * stride + span - length), [before, after] = given ? [given[i], given[i + 2]] : [missing >> 1, (missing + 1) >> 1];
    const whole = length + before + after, room = whole + (layer.isCeiled ? stride - 1 : 0);
    if (layer.kind !== "conv" && Math.max(before, after) >= span) refuse(`${layer.text}: padding out of range`, Math.max(before, after), `0 … ${span - 1}`, "more would make windows of padding alone");
    if (span > room) refuse(`${layer.text}: a window larger than what it slides over`, `${span} on ${whole} of ${h}×${w}×${c}`);
    const count = Math.floor((room - span) / stride) + 1;
    // None begins in the padding at the end.
    return [before, layer.isCeiled && (count - 1) * stride >= length + before ? count - 1 : count, whole];
  };
  switch (layer.kind) {
    case "conv": {
      if (c % layer.groups || layer.filters % layer.groups) refuse(`${layer.text}: groups that channels and filters can't be divided into`, `${layer.groups} groups of ${c} channels and ${layer.filters} filters`, "a number that divides both");
      const [fh, fw] = layer.size, [ph, oh] = axis(0), [pw, ow] = axis(1), channels = c / layer.groups;
      return {
        output: [oh, ow, layer.filters], start: [ph, pw], operations: 2 * oh * ow * layer.filters * fh * fw * channels,
        parameters: weights(layer, [fh, fw, channels, layer.filters], fh * fw * channels, (fh * fw * layer.filters) / layer.groups),
      };
    }
    case "maxpool": case "avgpool": {
      const most = layer.kind === "maxpool" ? 65535 : 1 << 24;
      if (product(layer.size) > most) refuse(`${layer.text}: window too large`, `${product(layer.size)} values`, `at most ${most}`);
      const [ph, oh, high] = axis(0), [pw, ow, wide] = axis(1);
      return { output: [oh, ow, c], start: [ph, pw], counted: layer.countsPadding ? [high, wide] : [0, 0] };
    }
    case "globalavgpool": return { size: [h, w], stride: [h, w], output: [1, 1, c], start: [0, 0], counted: [h, w] };
    case "batchnorm": case "layernorm": {
      const row = (name, value, isTrained = true) => ({ name, shape: [c], count: c, init: `constant:${value}`, isTrained });
      const running = layer.kind === "batchnorm" ? [row("running_mean", 0, false), row("running_var", 1, false)] : [];
      return { output: [h, w, c], parameters: [row("weight", 1), row("bias", 0), ...running] };
    }
    case "residual": {
      const body = plan(layer.body, [h, w, c]), shortcut = plan(layer.shortcut, [h, w, c]), output = body.at(-1).output, beside = (shortcut.at(-1) ?? { output: [h, w, c] }).output;
      if ([body, shortcut].some((side) => side.length && side.every((o) => o.kind === "flatten"))) refuse(`${layer.text}: a residual connection around nothing`, undefined, "at least one layer that computes something");
      if (String(output) !== String(beside))
        refuse(`${layer.text}: the two sides of a residual connection differ in size`, `${output.join("×")} from the layers, ${beside.join("×")} beside them`, "the same of both",
          shortcut.length ? "change the shortcut's filters or stride" : `use padding=same in its convolutions, or give it a shortcut: residual(… | conv(${output[2]},1,activation=none))`);
      const both = [...body, ...shortcut];
      return { output, body, shortcut, parameters: both.flatMap((o) => o.parameters), operations: both.reduce((sum, o) => sum + (o.operations ?? 0), 0) };
    }
    case "flatten": return { output: [1, 1, h * w * c] };
    case "dense":
      if (h * w > 1) refuse(`${layer.text}: a dense layer over an image`, `${h}×${w}×${c}`, `${h * w * c} values in a row`, "put a flatten layer before it");
      return { output: [1, 1, layer.outputs], operations: 2 * c * layer.outputs, parameters: weights(layer, [layer.outputs, c], c, layer.outputs) };
    default: return { output: [h, w, c] };
  }
}

// Top, left, bottom and right; null for as much as there are outputs with.
function padding({ padding: text }) {
  if (text === "same") return null;
  if (text === "valid") return [0, 0, 0, 0];
  const numbers = text.split("x").map(Number);
  if (!/^\d+(x\d+(x\d+x\d+)?)?$/.test(text) || Math.max(...numbers) > 1 << 24) refuse("padding out of range", `'${text}'`, "same, valid, a whole number, two as 1x2 or four as 0x0x1x1 (top, left, bottom, right)");
  return numbers.length === 4 ? numbers : [numbers[0], numbers.at(-1), numbers[0], numbers.at(-1)];
}

function weights(layer, shape, fanIn, fanOut) {
  const usual = ["relu", "leaky_relu", "elu", "gelu", "silu", "softplus"].includes(layer.activation) ? "he_uniform" : "glorot_uniform";
  const known = /^((he|glorot|lecun)_(uniform|normal)|constant:[^:]+|uniform:[^:]+:[^:]+)$/;
  if (layer.init && !known.test(layer.init)) refuse("unknown initializer", `'${layer.init}'`, "he_uniform, he_normal, glorot_uniform, glorot_normal, lecun_uniform, lecun_normal, uniform:0:0.1, constant:0");
  return [
    { name: "weight", shape, count: product(shape), init: layer.init ?? usual, fanIn, fanOut, isTrained: true },
    { name: "bias", shape: [layer.filters ?? layer.outputs], count: layer.filters ?? layer.outputs, init: "constant:0", isTrained: true },
  ];
}

// MARK: Random numbers, as many as wanted from one seed (Steele, Lea & Flood 2014, 32 bits of it)
function* numbers(seed) {
  for (let state = seed >>> 0; ; ) {
    state = (state + 0x9e3779b9) >>> 0;
    let z = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    yield ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  }
}
function random(seed) {
  const all = numbers(seed);
  return () => all.next().value;
}

function draw({ init, fanIn, fanOut }, values, uniform) {
  const [kind, a, b] = init.split(":"), normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const variance = { he: 2 / fanIn, glorot: 2 / (fanIn + fanOut), lecun: 1 / fanIn }[kind.split("_")[0]];
  for (let i = 0; i < values.length; i++)
    values[i] = kind === "constant" ? +a : kind === "uniform" ? +a + uniform() * (b - a) : kind.endsWith("normal") ? normal() * Math.sqrt(variance) : (2 * uniform() - 1) * Math.sqrt(3 * variance);
}

// MARK: Kernels
const forwardPass = 0, inputGradient = 1, weightGradient = 2;
class Kernels {
  constructor(module) {
    this.c = new WebAssembly.Instance(module, { env: { expf: Math.exp, logf: Math.log } }).exports;
    this.end = this.c.__heap_base.value;
    // Variants by name, as variants.def has them; a variant's name is its first field.
    const list = (at) => {
      const found = {};
      for (let i = 0, variant; (variant = at(i)); i++) found[this.text(this.ints(variant, 1)[0])] = variant;
      return found;
    };
    this.convolutions = list(this.c.ck_conv_variant_at);
    // Those of bf16, as field 7 says, aren't to be chosen by name.
    for (const [name, variant] of Object.entries(this.convolutions)) if (this.ints(variant, 8)[7]) delete this.convolutions[name];
    this.poolings = list(this.c.ck_pool_variant_at);
    this.functions = list(this.c.activation_at);
  }
  floats(at, count) { return new Float32Array(this.c.memory.buffer, at, count); }
  ints(at, count) { return new Int32Array(this.c.memory.buffer, at, count); }
  text(at) {
    const data = new Uint8Array(this.c.memory.buffer);
    let end = at;
    while (data[end]) end++;
    return String.fromCharCode(...data.subarray(at, end));
  }
  // Room for so many floats, zeros.
  reserve(count) {
    const at = Math.ceil(this.end / 64) * 64, pages = Math.ceil((at + 4 * count - this.c.memory.buffer.byteLength) / 65536);
    if (at + 4 * count > 2 ** 30) refuse("a network or batch that is too large for this page", `${((at + 4 * count) / 2 ** 30).toFixed(1)} GB`, "at most 1 GB");
    try {
      if (pages > 0) this.c.memory.grow(pages);
    } catch {
      refuse("no memory", `${pages * 65536} bytes more`, undefined, "a smaller network or batch");
    }
    this.end = at + 4 * count;
    return at;
  }
  // A C struct of whole numbers.
  struct(values) {
    const at = this.reserve(values.length);
    this.ints(at, values.length).set(values);
    return at;
  }
}

// What `auto` takes for a convolution and a pass; the same choice as `pick` in KernelVariants.swift.
function pick(o, pass) {
  const [c, f] = [o.input[2] / o.groups, o.filters / o.groups], [fh, fw] = o.size, three = fh === 3 && fw === 3;
  if (o.groups > 1 && o.groups === o.input[2] && o.groups === o.filters) return "direct";
  if (pass === inputGradient && c <= 8 && fh * fw * f > 120 + 20 * c) return "im2col";
  const plain = o.groups === 1 && product(o.dilation) * product(o.stride) === 1;
  if (!three || !plain || Math.min(c, f) < 16) return "direct";
  const [h, w] = pass === inputGradient ? o.input : o.output, even = pass === forwardPass ? ~1 : ~0;
  return 9 * (o.output[0] & even) * (o.output[1] & even) >= 60 * Math.ceil(h / 4) * Math.ceil(w / 4) ? "winograd" : "direct";
}

// MARK: Network
class Network {
  constructor(module, text, input, normalization) {
    this.layers = parse(text);
    this.text = this.layers.map((layer) => layer.text).join(" ");
    this.operations = plan(this.layers, input);
    this.input = input;
    this.classes = product(this.operations.at(-1).output);
    this.endsInSoftmax = this.operations.at(-1).activation === "softmax";
    // With those inside residual connections.
    const withInner = (list) => list.flatMap((o) => (o.body ? [o, ...withInner(o.body), ...withInner(o.shortcut)] : [o]));
    this.every = withInner(this.operations);
    // In the order of files, running statistics too, which aren't learned.
    this.parameters = this.operations.flatMap((o) => o.parameters);
    this.count = this.parameters.reduce((sum, p) => sum + p.count, 0);
    const operations = this.operations.reduce((sum, o) => sum + (o.operations ?? 0), 0);
    if (operations > 1e9) refuse("a network that is too large for this page", `${(operations / 1e9).toFixed(1)} billion operations an image`, "at most 1", "stridenet train takes it");
    const k = (this.k = new Kernels(module));
    this.kernels = "auto";
    for (const p of this.parameters) {
      p.value = k.reserve(p.count);
      p.decays = p.shape.length > 1;
    }
    for (const o of this.every) {
      if (o.kind === "conv") o.shape = k.struct([1, ...o.input, ...o.size, o.filters, ...o.stride, ...o.start, ...o.output.slice(0, 2), ...o.dilation, o.groups]);
      if (o.kind.endsWith("pool")) o.shape = k.struct([1, ...o.input, ...o.size, ...o.stride, ...o.output.slice(0, 2), ...o.start, ...o.counted]);
      // Mean, its factor, scale, shift, a, b and two sums of each channel.
      if (o.kind === "batchnorm") o.rows = Array.from({ length: 8 }, () => k.reserve(o.input[2]));
    }
    if (normalization) this.normalization = [normalization.scale, normalization.shift].map((values) => {
      const at = k.reserve(values.length);
      k.floats(at, values.length).set(values);
      return at;
    });
    this.batch = 0;
    this.generation = 0;
  }
  // Names of kernel variants, slowest first.
  get variants() { return [...Object.keys(this.k.convolutions), "auto"]; }

  initialize(seed) {
    const uniform = random(seed);
    for (const p of this.parameters) draw(p, this.k.floats(p.value, p.count), uniform);
    this.generation++;
  }
  get values() {
    const all = new Float32Array(this.count);
    let at = 0;
    for (const p of this.parameters) {
      all.set(this.k.floats(p.value, p.count), at);
      at += p.count;
    }
    return all;
  }
  set values(all) {
    let at = 0;
    for (const p of this.parameters) {
      this.k.floats(p.value, p.count).set(all.subarray(at, at + p.count));
      at += p.count;
    }
    this.generation++;
  }

  // What training keeps running beside the weights.
  get statistics() { return this.parameters.filter((p) => !p.isTrained).map((p) => this.k.floats(p.value, p.count).slice()); }
  set statistics(all) { this.parameters.filter((p) => !p.isTrained).forEach((p, i) => this.k.floats(p.value, p.count).set(all[i])); }

  // Room for so many images, and for the way back, to the images themselves if that is wanted.
  reserve(batch, training = false, toImages = false) {
    const k = this.k;
    if (batch > this.batch) {
      this.batch = batch;
      this.trains = false;
      this.images = k.reserve(batch * product(this.input));
      this.first = this.normalization ? k.reserve(batch * product(this.input)) : this.images;
      const lay = (operations, below) => {
        for (const o of operations) {
          const count = batch * product(o.output);
          o.x = below;
          if (o.kind === "residual") o.sides = [lay(o.body, below), lay(o.shortcut, below)];
          o.y = o.kind === "flatten" ? below : k.reserve(count);
          if (o.kind === "maxpool") o.places = k.reserve(Math.ceil(count / 2));
          if (["gelu", "silu"].includes(o.activation)) o.kept = k.reserve(count);
          below = o.y;
        }
        return below;
      };
      lay(this.operations, this.first);
      // A workspace that serves all variants and passes.
      let most = k.c.gemm_workspace();
      for (const o of this.every.filter((o) => o.kind === "conv")) {
        k.ints(o.shape, 1)[0] = batch;
        for (const variant of Object.values(k.convolutions)) for (const pass of [0, 1, 2]) most = Math.max(most, k.c.ck_conv_workspace(variant, o.shape, pass));
      }
      this.workspace = k.reserve(most);
      this.labels = k.reserve(batch);
      this.loss = k.reserve(batch);
      this.wrong = k.reserve(batch);
    }
    if (training && (!this.trains || (toImages && !this.imageGradient))) {
      this.trains = true;
      this.imageGradient = toImages ? k.reserve(this.batch * product(this.input)) : null;
      // Below the first weights no gradient is wanted otherwise.
      const lay = (operations, below, wanted) => {
        for (const o of operations) {
          o.dx = wanted ? below : null;
          if (o.kind === "residual") {
            o.bodyGradient = wanted ? k.reserve(this.batch * product(o.input)) : null;
            lay(o.body, o.bodyGradient, wanted);
            lay(o.shortcut, o.dx, wanted);
          }
          o.dy = o.kind === "flatten" ? o.dx : k.reserve(this.batch * product(o.output));
          below = o.dy;
          wanted ||= o.parameters.length > 0;
        }
      };
      lay(this.operations, this.imageGradient, toImages);
      for (const p of this.parameters) p.gradient ??= k.reserve(p.count);
    }
  }

  // Images (numbers in 0…1, or bytes with `scale` 1 / 255) as the first layer's input.
  load(images, first, count, scale = 1) {
    this.reserve(count);
    const size = product(this.input), k = this.k, x = k.floats(this.images, count * size);
    for (let i = 0; i < x.length; i++) x[i] = images[first * size + i] * scale;
    this.normalize(count);
  }
  normalize(count) {
    if (this.normalization) this.k.c.scale_shift((count * product(this.input)) / this.input[2], this.input[2], this.images, ...this.normalization, 0, this.first);
  }

  // The kernel that runs: its name in C without its prefix.
  kernel(o, pass = forwardPass) {
    if (o.kind === "conv") {
      // Of what winograd can't do, direct's functions do all.
      const name = this.convolution(o, pass), isThree = o.size.every((size, i) => size === 3 && o.dilation[i] % o.stride[i] === 0);
      return `conv_${["forward", "input_gradient", "weight_gradient"][pass]}_${name === "winograd" && !isThree ? "direct" : name}`;
    }
    if (o.kind.endsWith("pool")) return `pool_${o.kind === "maxpool" ? "max" : "avg"}_${pass ? "backward" : "forward"}_${this.pooling}`;
    return { dense: pass ? "gemm" : "dense_forward", batchnorm: "scale_shift", layernorm: "layer_norm_forward", residual: "its layers'" }[o.kind] ?? null;
  }
  convolution(o, pass) { return this.kernels === "auto" ? pick(o, pass) : this.kernels; }
  get pooling() { return this.kernels in this.k.poolings ? this.kernels : "direct"; }

  // MARK: Forward
  // Of the last layer's softmax, only its logits if `logits` is set.
  forward(count, { training = false, logits = false } = {}) {
    for (const o of this.operations) this.step(o, count, training, logits && o === this.operations.at(-1));
  }
  step(o, count, training = false, logits = false) {
    const { c } = this.k, size = count * product(o.output), [weight, bias] = o.parameters;
    if (o.shape) this.k.ints(o.shape, 1)[0] = count;
    const relu = o.activation === "relu" ? 1 : 0;
    switch (o.kind) {
      case "conv": c.ck_conv_forward(this.k.convolutions[this.convolution(o, forwardPass)], o.shape, o.x, weight.value, bias.value, relu, o.y, this.workspace); break;
      case "dense": c.dense_forward(count, o.output[2], o.input[2], o.x, weight.value, bias.value, relu, o.y); break;
      case "maxpool": c.max_forward(this.k.poolings[this.pooling], o.shape, o.x, o.y, o.places); break;
      case "avgpool": case "globalavgpool": c.avg_forward(this.k.poolings[this.pooling], o.shape, o.x, o.y); break;
      case "batchnorm": {
        if (training) this.measure(o, count);
        const [scale, shift] = training ? o.rows.slice(2, 4) : this.factors(o);
        c.scale_shift(size / o.output[2], o.output[2], o.x, scale, shift, relu, o.y);
        break;
      }
      case "layernorm": c.layer_norm_forward(size / o.output[2], o.output[2], o.x, weight.value, bias.value, o.epsilon, o.y); break;
      case "residual":
        for (const inner of [...o.shortcut, ...o.body]) this.step(inner, count, training);
        c.sum(size, ...o.sides, o.y);
        break;
      case "dropout":
        if (training) {
          c.dropout(size, (o.key = (Math.imul(this.generation, 0x9e3779b9) ^ o.y) >>> 0), 0, Math.floor(o.rate * 2 ** 32) >>> 0, 1 / (1 - o.rate), o.x, o.y);
          break;
        }
      // Without training they are as they are.
      case "activation": this.k.floats(o.y, size).set(this.k.floats(o.x, size)); break;
    }
    if (relu && o.kind !== "activation") return;
    switch (o.activation) {
      case "none": break;
      case "relu": c.relu_forward(size, o.y, o.y); break;
      case "leaky_relu": c.leaky_relu_forward(size, o.slope, o.y, o.y); break;
      case "softmax": if (!logits) c.ck_softmax_forward(size / o.output[2], o.output[2], o.y, o.y); break;
      default:
        if (o.kept) this.k.floats(o.kept, size).set(this.k.floats(o.y, size));
        c.activation_forward(this.k.functions[o.activation], size, o.y, o.y);
    }
  }
  // Batch normalisation's factor and shift of each channel with the running statistics.
  factors(o) {
    const [weight, bias, mean, variance] = o.parameters.map((p) => this.k.floats(p.value, p.count)), [scale, shift] = [2, 3].map((i) => this.k.floats(o.rows[i], weight.length));
    for (let i = 0; i < weight.length; i++) {
      scale[i] = weight[i] / Math.sqrt(variance[i] + o.epsilon);
      shift[i] = bias[i] - mean[i] * scale[i];
    }
    return o.rows.slice(2, 4);
  }
  // The same with those of a mini-batch, which go into the running ones.
  measure(o, count) {
    const channels = o.input[2], n = (count * product(o.input)) / channels, row = (at) => this.k.floats(at, channels);
    this.k.c.moments(n, channels, o.x, o.rows[6], o.rows[7]);
    const [weight, bias, runningMean, runningVariance] = o.parameters.map((p) => row(p.value)), [mean, inverse, scale, shift, , , means, squares] = o.rows.map(row);
    for (let i = 0; i < channels; i++) {
      mean[i] = means[i];
      inverse[i] = 1 / Math.sqrt(squares[i] / n + o.epsilon);
      scale[i] = weight[i] * inverse[i];
      shift[i] = bias[i] - means[i] * scale[i];
      runningMean[i] += o.momentum * (means[i] - runningMean[i]);
      runningVariance[i] += o.momentum * (squares[i] / Math.max(1, n - 1) - runningVariance[i]);
    }
  }
  output(o, count) { return this.k.floats(o.y, count * product(o.output)); }

  // Outputs for images, a part of them at a time.
  predict(images, count, scale, each) {
    const floats = this.every.reduce((sum, o) => sum + product(o.output), 0), part = Math.max(1, Math.min(100, count, Math.floor(2e7 / floats)));
    for (let first = 0; first < count; first += part) {
      const n = Math.min(part, count - first);
      this.load(images, first, n, scale);
      this.forward(n);
      each(first, n);
    }
  }

  // MARK: Backward
  // The mean cross-entropy and the share that is wrong of `count` loaded images, and with `training`
  // the gradients of all parameters. `each` sees a layer while dy is the gradient of its output, of
  // the last one's logits.
  backward(count, labels, training = true, each = () => {}) {
    if (!this.endsInSoftmax) refuse("training needs probabilities", this.layers.at(-1).text, "a last layer with softmax");
    this.reserve(count, training);
    this.k.ints(this.labels, count).set(labels);
    this.forward(count, { training, logits: true });
    const last = this.operations.at(-1), { c } = this.k;
    c.ck_softmax_cross_entropy(count, last.output[2], last.y, this.labels, 0, 1 / count, last.y, training ? last.dy : 0, this.loss, this.wrong);
    if (training) for (const o of [...this.operations].reverse()) {
      each(o);
      this.back(o, count, o === last);
    }
    const mean = (values) => values.reduce((a, b) => a + b, 0) / count;
    return { loss: mean(this.k.floats(this.loss, count)), error: mean(this.k.ints(this.wrong, count)) };
  }
  // From dy, which becomes the gradient of the sums before the activation, to dx.
  back(o, count, isLast) {
    const { c } = this.k, size = count * product(o.output), [weight, bias] = o.parameters, outputs = o.output[2];
    if (!isLast) {
      if (o.activation === "relu") c.relu_backward(size, o.y, o.dy, o.dy);
      else if (o.activation === "leaky_relu") c.leaky_relu_backward(size, o.slope, o.y, o.dy, o.dy);
      else if (o.activation === "softmax") c.ck_softmax_backward(size / outputs, outputs, o.y, o.dy, o.dy);
      else if (o.activation !== "none") c.activation_backward(this.k.functions[o.activation], size, o.kept ?? o.y, o.dy, o.dy);
    }
    if (o.shape) this.k.ints(o.shape, 1)[0] = count;
    const [transposed, plain] = [1, 0];
    if (o.kind === "conv") {
      c.ck_conv_weight_gradient(this.k.convolutions[this.convolution(o, weightGradient)], o.shape, o.x, o.dy, weight.gradient, this.workspace);
      c.column_sum(size / outputs, outputs, o.dy, bias.gradient);
      if (o.dx) c.ck_conv_input_gradient(this.k.convolutions[this.convolution(o, inputGradient)], o.shape, o.dy, weight.value, o.dx, this.workspace);
    } else if (o.kind === "dense") {
      const inputs = o.input[2];
      c.gemm(transposed, outputs, inputs, count, o.dy, outputs, o.x, inputs, weight.gradient, inputs, this.workspace);
      c.column_sum(count, outputs, o.dy, bias.gradient);
      if (o.dx) c.gemm(plain, count, inputs, outputs, o.dy, outputs, weight.value, inputs, o.dx, inputs, this.workspace);
    } else if (o.kind === "batchnorm") {
      const rows = size / outputs, row = (at) => this.k.floats(at, outputs), [mean, , scale, shift, a, b, sums, products] = o.rows;
      c.normalization_sums(rows, outputs, o.x, o.dy, mean, scale, shift, 0, sums, products);
      const [inverses, even, slope, sum, product_] = [o.rows[1], a, b, sums, products].map(row), [gain, offset] = [weight, bias].map((p) => row(p.gradient));
      for (let i = 0; i < outputs; i++) {
        offset[i] = sum[i];
        gain[i] = product_[i] * inverses[i];
        even[i] = sum[i] / rows;
        slope[i] = (product_[i] * inverses[i] ** 2) / rows;
      }
      if (o.dx) c.normalization_gradient(rows, outputs, o.x, o.dy, mean, scale, shift, 0, a, b, o.dx);
    } else if (o.kind === "layernorm") {
      for (const p of [weight, bias]) this.k.floats(p.gradient, outputs).fill(0);
      // Where nobody needs dx, y's memory takes it: y isn't read any more.
      c.layer_norm_backward(size / outputs, outputs, o.x, weight.value, o.epsilon, o.dy, o.dx ?? o.y, weight.gradient, bias.gradient);
    } else if (o.kind === "residual") {
      const copy = (to) => this.k.floats(to, size).set(this.k.floats(o.dy, size)), back = (side) => [...side].reverse().forEach((inner) => this.back(inner, count));
      copy(o.body.at(-1).dy);
      back(o.body);
      if (o.shortcut.length) {
        copy(o.shortcut.at(-1).dy);
        back(o.shortcut);
      } else if (o.dx) copy(o.dx);
      if (o.dx) c.add(count * product(o.input), o.bodyGradient, o.dx);
    } else if (!o.dx) return;
    else if (o.kind === "maxpool") c.max_backward(this.k.poolings[this.pooling], o.shape, o.dy, o.places, o.dx);
    else if (o.kind.endsWith("pool")) c.avg_backward(this.k.poolings[this.pooling], o.shape, o.dy, o.dx);
    else if (o.kind === "dropout") c.dropout(size, o.key, 0, Math.floor(o.rate * 2 ** 32) >>> 0, 1 / (1 - o.rate), o.dy, o.dx);
    else if (o.kind === "activation") this.k.floats(o.dx, size).set(this.k.floats(o.dy, size));
  }

  // One step of an optimiser; `step` counts from 1.
  update(rule, rate, step) {
    const { kernel, momentum, beta2 = 0, decay = 0, nesterov = 0 } = rule, k = this.k;
    this.settings ??= k.reserve(11);
    for (const p of this.parameters.filter((p) => p.isTrained)) {
      p.velocity ??= k.reserve(p.count);
      p.square ??= k.reserve(p.count);
      // ck_update: rate, scale, l2, l1, keep, momentum, beta2, epsilon, correction1, correction2, nesterov
      k.floats(this.settings, 10).set([rate, 1, 0, 0, p.decays ? 1 - rate * decay : 1, momentum, beta2, 1e-8, 1 - momentum ** step, 1 - beta2 ** step]);
      k.ints(this.settings + 40, 1)[0] = nesterov;
      k.c[kernel](p.count, this.settings, p.gradient, p.velocity, p.square, p.value);
    }
    this.generation++;
  }
  forget() { for (const p of this.parameters) for (const name of ["velocity", "square"]) if (p[name]) this.k.floats(p[name], p.count).fill(0); }
}

// MARK: Training
const optimizers = {
  sgd: { kernel: "sgd", momentum: 0.9 },
  nesterov: { kernel: "sgd", momentum: 0.9, nesterov: 1 },
  rmsprop: { kernel: "rmsprop", momentum: 0, beta2: 0.99 },
  adam: { kernel: "adam", momentum: 0.9, beta2: 0.999 },
  adamw: { kernel: "adam", momentum: 0.9, beta2: 0.999, decay: 0.01 },
};
const changes = { shift: 64, rotate: 180, scale: 0.9, shear: 2 };
function augmentation(text) {
  const result = {};
  for (const part of text ? text.split(",") : []) {
    const [name, value] = part.split("=").map((word) => word.trim());
    if (name === "mirror" && value == null) result.mirror = true;
    else if (!(name in changes) || value == null) refuse("no such change of images on a page without a server", `'${part}'`, `${Object.keys(changes).map((n) => `${n}=…`).join(", ")}, mirror`);
    else if (!(+value >= 0 && +value <= changes[name])) refuse(`${name} out of range`, `'${value}'`, `0 … ${changes[name]}`);
    else result[name] = +value;
  }
  return Object.keys(result).length ? result : null;
}

// Trains; yields after each mini-batch, and with `epoch` set after each epoch.
function* trainingSteps(network, data, settings) {
  const { train, test } = data, { epochs, batch, rate, optimizer, changes, seed } = settings;
  const uniform = random(seed + 1), size = product(network.input), order = [...train.labels.keys()];
  const perEpoch = Math.ceil(train.count / batch), labels = new Int32Array(batch);
  network.reserve(batch, true);
  network.forget();
  let step = 0;
  for (let epoch = 1; epoch <= epochs; epoch++) {
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(uniform() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    const sums = { loss: 0, error: 0 };
    let seconds = 0;
    for (let first = 0; first < train.count; first += batch) {
      const began = performance.now(), count = Math.min(batch, train.count - first), x = network.k.floats(network.images, count * size);
      for (let i = 0; i < count; i++) {
        const from = order[first + i] * size;
        for (let j = 0; j < size; j++) x[i * size + j] = train.pixels[from + j] / 255;
        labels[i] = train.labels[order[first + i]];
        if (changes) change(network, network.images + 4 * i * size, changes, uniform);
      }
      network.normalize(count);
      const { loss, error } = network.backward(count, labels.subarray(0, count));
      if (!Number.isFinite(loss)) refuse(`Training diverged in epoch ${epoch}, batch ${first / batch + 1}: the loss is no longer a finite number. Try a tenth of the learning rate.`);
      const share = rate * (1 - step / (epochs * perEpoch));
      network.update(optimizers[optimizer], share, ++step);
      sums.loss += loss * count;
      sums.error += error * count;
      seconds += (performance.now() - began) / 1000;
      yield { step, loss, error, rate: share };
    }
    const { loss, error, confusion } = evaluate(network, test);
    yield { epoch, step, confusion, train_loss: sums.loss / train.count, train_error: sums.error / train.count, test_loss: loss, test_error: error, images_per_second: train.count / seconds };
  }
}

// On the first `most` images; what they are and were taken for as label, guess, images, and so on.
function evaluate(network, set, most = Infinity) {
  const all = Math.min(most, set.count), sums = { loss: 0, error: 0 }, pairs = new Map(), classes = network.classes;
  for (let first = 0; first < all; first += 100) {
    const count = Math.min(100, all - first);
    network.load(set.pixels, first, count, 1 / 255);
    const { loss, error } = network.backward(count, set.labels.subarray(first, first + count), false);
    sums.loss += (loss * count) / all;
    sums.error += (error * count) / all;
    const output = network.output(network.operations.at(-1), count);
    for (let i = 0; i < count; i++) {
      let guess = 0;
      for (let c = 1; c < classes; c++) if (output[i * classes + c] > output[i * classes + guess]) guess = c;
      const pair = set.labels[first + i] * classes + guess;
      pairs.set(pair, (pairs.get(pair) ?? 0) + 1);
    }
  }
  return { ...sums, confusion: [...pairs].flatMap(([pair, images]) => [Math.floor(pair / classes), pair % classes, images]) };
}

// One image, in place, changed by random amounts about its middle; the map is Augmentation.swift's.
function change(network, image, { shift = 0, rotate = 0, scale = 0, shear = 0, mirror }, uniform) {
  const [h, w, c] = network.input, k = network.k, signed = (most) => (2 * uniform() - 1) * most;
  network.bordered ??= k.reserve((h + 3) * (w + 3) * c);
  network.map ??= k.reserve(6);
  const angle = (signed(rotate) * Math.PI) / 180, size = 1 / (1 + signed(scale)), slant = signed(shear);
  const [down, right] = [signed(shift), signed(shift)], flip = mirror && uniform() < 0.5 ? -1 : 1;
  const [sine, cosine] = [Math.sin(angle) * size, Math.cos(angle) * size];
  const [a, b, d, e] = [cosine - sine * slant, -sine * flip, sine + cosine * slant, cosine * flip];
  const [row, column] = [(h - 1) / 2, (w - 1) / 2], [p, q] = [row + down, column + right];
  const from = k.floats(image, h * w * c), bordered = k.floats(network.bordered, (h + 3) * (w + 3) * c);
  for (let y = 0; y < h; y++) bordered.set(from.subarray(y * w * c, (y + 1) * w * c), ((y + 1) * (w + 3) + 1) * c);
  k.floats(network.map, 6).set([a, b, row - a * p - b * q, d, e, column - d * p - e * q]);
  k.c.warp(h, w, c, network.bordered, network.map, image);
}
