// SPDX-License-Identifier: MIT
// How a layer computes, number by number: the window slides, multiplies and adds, in the order
// of the kernels in use (CKernels/). The sums are made here, of the layer's input and weights, and held
// against what the kernel made.

// Numbers as squares, with digits in them where there is room; what is null isn't there yet. Boxes are
// [row, column, height, width, colour].
function grid(canvas, rows, columns, at, { room = 300, high = 340, largest = null, boxes = [], most = 36 } = {}) {
  const zoom = Math.max(1, Math.min(most, Math.floor(room / columns), Math.floor(high / rows))), ratio = Math.max(1, Math.ceil(devicePixelRatio));
  const values = Array.from({ length: rows * columns }, (_, i) => at(Math.floor(i / columns), i % columns));
  largest ??= values.reduce((most, v) => Math.max(most, Math.abs(v ?? 0)), 1e-12);
  canvas.width = columns * zoom * ratio; canvas.height = rows * zoom * ratio;
  Object.assign(canvas.style, { width: `${columns * zoom}px`, maxWidth: "100%", height: "auto" });
  const context = canvas.getContext("2d"), colour = [0, 0, 0, 0];
  context.scale(ratio, ratio);
  Object.assign(context, { font: "11px sans-serif", textAlign: "center", textBaseline: "middle", lineWidth: 2 });
  values.forEach((value, i) => {
    if (value == null) return;
    const [y, x, share] = [Math.floor(i / columns) * zoom, (i % columns) * zoom, Math.max(-1, Math.min(1, value / largest))];
    put(colour, 0, share);
    context.fillStyle = `rgb(${colour.slice(0, 3)})`;
    context.fillRect(x, y, zoom, zoom);
    if (zoom < 28) return;
    context.fillStyle = Math.abs(share) > 0.45 !== dark ? "#fff" : "#000";
    context.fillText(Math.abs(value) >= 100 ? value.toFixed(0) : String(+value.toFixed(2)), x + zoom / 2, y + zoom / 2);
  });
  for (const [y, x, h, w, stroke] of boxes) {
    context.strokeStyle = stroke ?? (dark ? "#fff" : "#000");
    context.strokeRect(x * zoom + 1, y * zoom + 1, w * zoom - 2, h * zoom - 2);
  }
}

const play = (() => {
  let row = null, model = null, at = 0, frame = 0, last = 0, owed = 0, stale = true, inSight = false, turn = 0;
  const slots = {}, isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
  const nameOf = (layer) => layer.text.match(/^\w+/)[0];
  const isSoftmax = (row) => /\bsoftmax\b/.test(row.layer.text) && nameOf(row.layer) !== "residual" && (row.index === rows.length - 1 || nameOf(row.layer) === "activation");
  // Outputs and vectors that a tile in the registers has: CK_MR, CK_LANES.
  const tile = () => (/512/.test(machine.isa) ? [14, 16] : /avx2/.test(machine.isa) ? [6, 8] : /neon/.test(machine.isa) ? [8, 4] : [4, 4]);
  const list = (count, first = 0) => Array.from({ length: count }, (_, i) => first + i);

  function applied({ activation, slope }, x) {
    switch (activation) {
      case "relu": return Math.max(0, x);
      case "leaky_relu": return x > 0 ? x : slope * x;
      case "elu": return x > 0 ? x : Math.expm1(x);
      case "sigmoid": return 1 / (1 + Math.exp(-x));
      case "tanh": return Math.tanh(x);
      case "softplus": return Math.max(0, x) + Math.log1p(Math.exp(-Math.abs(x)));
      case "silu": return x / (1 + Math.exp(-x));
      case "gelu": {
        // erf by its series
        const z = Math.min(6, Math.abs(x) / Math.SQRT2);
        let sum = z;
        for (let n = 1, term = z; n < 200; n++) sum += (term *= (2 * z * z) / (2 * n + 1));
        return (x / 2) * (1 + (Math.sign(x) * 2 * Math.exp(-z * z) * sum) / Math.sqrt(Math.PI));
      }
      default: return x;
    }
  }

  // MARK: What is computed: each output a sum, a maximum or a mean of what its window meets
  function windows(row, answer, first) {
    const { layer } = row, below = all()[row.index].layer.shape, x = valuesOf(all()[row.index]), name = nameOf(layer), y = valuesOf(row);
    const pools = name.endsWith("pool"), dense = !layer.window, [oh, ow, F] = layer.shape, [h, w, C] = below;
    const [fh, fw] = layer.window ?? [1, 1], [sh, sw] = layer.stride ?? [1, 1], [top, left] = layer.start ?? [0, 0], [dh, dw] = layer.dilation ?? [1, 1];
    const size = pools ? fh * fw : answer.values.length / answer.bias.length, deep = dense ? size : size / (fh * fw), groups = pools ? C : C / deep;
    const logits = answer.activation === "softmax" ? (isSoftmax(row) ? seen.logits : null) : y;
    const place = (o, k) => [Math.floor(o / ow) * sh + Math.floor(k / (deep * fw)) * dh - top, (o % ow) * sw + (Math.floor(k / deep) % fw) * dw - left];
    // Which number of the input; -1 for zeros around it.
    const tap = (o, f, k) => {
      const [i, j] = place(o, k);
      return i < 0 || j < 0 || i >= h || j >= w ? -1 : (i * w + j) * C + (pools ? f : Math.floor(f / (F / groups)) * deep + (k % deep));
    };
    const value = (o, f, k) => { const i = tap(o, f, k); return i < 0 ? 0 : x[i]; };
    const weight = (f, k) => (pools ? 1 : answer.values[(f - first) * size + k]), bias = (f) => (pools ? 0 : answer.bias[f - first]);
    const made = new Map();
    const m = {
      name, pools, dense, oh, ow, F, h, w, C, fh, fw, sh, sw, top, left, dh, dw, size, deep, groups, answer, place, tap, value, weight, bias, x, y,
      first, count: pools ? F : answer.bias.length,
      // The first k products added, or of k candidates the largest and which it is.
      part(o, f, k) {
        let sum = 0;
        if (name === "maxpool") return m.winner(o, f, k)[0];
        for (let i = 0; i < k; i++) sum += value(o, f, i) * weight(f, i);
        return sum;
      },
      winner(o, f, k) {
        let best = [null, -1];
        for (let i = 0; i < k; i++) if (tap(o, f, i) >= 0 && !(value(o, f, i) <= best[0] && best[1] >= 0)) best = [value(o, f, i), i];
        return best;
      },
      finish(o, f) {
        if (!made.has(f)) made.set(f, []);
        return (made.get(f)[o] ??= name === "maxpool" ? m.part(o, f, size) : pools ? m.part(o, f, size) / answer.divisors[o] : applied(answer, m.part(o, f, size) + bias(f)));
      },
      kernel: (o, f) => logits?.[o * F + f],
      // Within rounding: each addition errs by 2⁻²⁴ of its result at most.
      agrees(o, f) {
        let sizes = Math.abs(bias(f));
        for (let k = 0; k < size; k++) sizes += Math.abs(value(o, f, k) * weight(f, k));
        return Math.abs(m.finish(o, f) - m.kernel(o, f)) <= 2 * (size + 2) * 2 ** -24 * sizes + 2 ** -20 * Math.abs(m.finish(o, f));
      },
    };
    return m;
  }

  // MARK: Orders: parts of so many steps; after `u` of part `i`, which outputs and filters are under way,
  // how many products of theirs are done, and what of the output is there.
  const orders = {
    naive(m, filters) {
      const n = filters.length, across = m.dense ? 1 : m.ow * n, K = m.size;
      return {
        lengths: Array((m.oh * m.ow * n) / across).fill(across * K), unit: K,
        find: (o, f) => (o * n + Math.max(0, filters.indexOf(f))) * K,
        state(i, u) {
          const e = i * across + Math.max(0, Math.ceil(u / K) - 1), k = u - (e - i * across) * K, o = Math.floor(e / n), f = filters[e % n];
          return { outs: [o], fs: [f], k, shown: (p, g) => (p * n + filters.indexOf(g) < e + (k === K) ? m.finish(p, g) : null) };
        },
      };
    },
    stride_groups(m, [f]) {
      if (m.pools) return { lengths: [m.size], unit: 1, find: () => 0, state: (_, k) => ({ outs: list(m.oh * m.ow), fs: [f], k, shown: (p, g) => (k < m.size ? k && m.part(p, g, k) / (m.name === "maxpool" ? 1 : m.answer.divisors[p]) : m.finish(p, g)) }) };
      const down = Math.ceil(m.fh / m.sh), right = Math.ceil(m.fw / m.sw), across = Math.min(right, m.ow), count = Math.min(down, m.oh) * across;
      const number = (o) => (Math.floor(o / m.ow) % down) * across + ((o % m.ow) % right);
      const members = list(count).map(() => []);
      for (const o of list(m.oh * m.ow)) members[number(o)].push(o);
      return {
        lengths: members.map((outs) => outs.length + m.size + 1), unit: 1,
        find: (o) => members.slice(0, number(o)).reduce((sum, outs) => sum + outs.length + m.size + 1, 0),
        jump: (i, u) => [members[i].length, members[i].length + m.size, Infinity].find((end) => end > u),
        state(i, u) {
          const outs = members[i], k = Math.max(0, Math.min(m.size, u - outs.length)), done = u > outs.length + m.size, columns = outs.filter((o) => Math.floor(o / m.ow) === Math.floor(outs[0] / m.ow)).length;
          return { outs, fs: [f], k, group: i, columns, matrix: outs, gathered: u, isDone: done, shown: (p, g) => (number(p) < i || (done && number(p) === i) ? m.finish(p, g) : null),
            said: `Group ${i + 1} of ${count}, ${outs.length} window${outs.length > 1 ? "s" : ""} that don't overlap. ${u <= outs.length ? `Gathering: ${u} of them are rows of the matrix.` : done ? "Bias and activation are done and the results are where they belong in the map." : "All its rows are multiplied by the same weight at once."}` };
        },
      };
    },
    im2col(m, [f]) {
      const count = m.oh * m.ow, rows = list(count), parts = list(m.oh).map(() => ({ steps: m.ow })), [high] = tile(), block = high * Math.floor(112 / high);
      // As the matrix product has it (gemm.inc.h): blocks of 512 taps, tiles of nearly equal height.
      for (let from = 0; from < m.size; from += 512)
        for (let first = 0; first < count; first += block) {
          const lines = Math.min(block, count - first), height = Math.ceil(lines / Math.ceil(lines / high));
          for (let i = 0; i < lines; i += height) parts.push({ steps: Math.min(512, m.size - from), from, outs: list(Math.min(height, lines - i), first + i) });
        }
      parts.push({ steps: 1, isLast: true });
      return {
        lengths: parts.map((p) => p.steps), unit: 1, find: (o) => o, jump: (i) => parts[i].outs ? Infinity : 0,
        state(i, u) {
          const { outs, from, isLast } = parts[i], k = outs ? from + u : isLast ? m.size : 0, gathered = i < m.oh ? i * m.ow + u : count;
          const raw = outs && from + 512 >= m.size ? outs[0] + (k === m.size ? outs.length : 0) : 0;
          return { outs: outs ?? (isLast ? rows : [Math.max(0, gathered - 1)]), fs: [f], k, matrix: rows, gathered, isDone: isLast && u > 0,
            shown: (p, g) => (isLast && u ? m.finish(p, g) : isLast || p < raw ? m.part(p, g, m.size) : null),
            said: i < m.oh ? `Writing the matrix: ${gathered} of ${grouped(count)} windows are rows of it.` : isLast ? "Bias and activation are applied to the whole product." : `Rows times weights: a tile of ${outs.length} rows, ${outs[0]} to ${outs.at(-1)}, stays in the registers.` };
        },
      };
    },
    direct(m, [f]) {
      const [high, lanes] = tile(), across = m.pools ? lanes : 2 * lanes, first = Math.floor(f / across) * across, fs = list(Math.min(across, m.F - first), first);
      const width = m.pools ? 1 : Math.ceil(m.ow / Math.ceil(m.ow / high)), tiles = Math.ceil(m.ow / width), K = m.size;
      return {
        lengths: Array(m.oh).fill(tiles * K), unit: K, find: (o) => (Math.floor(o / m.ow) * tiles + Math.floor((o % m.ow) / width)) * K,
        state(i, u) {
          const number = Math.max(0, Math.ceil(u / K) - 1), k = u - number * K, start = i * m.ow + number * width, outs = list(Math.min(width, m.ow - number * width), start);
          return { outs, fs, k, shown: (p, g) => (p < start + (k === K ? outs.length : 0) ? m.finish(p, g) : null),
            said: `A tile of ${outs.length} output${outs.length > 1 ? "s" : ""} by ${fs.length} ${m.pools ? "channels" : "filters"} stays in the registers while the window's numbers stream by.` };
        },
      };
    },
  };

  // MARK: Other layers: number by number, as softmax, or as the network's answers tell
  function softmax(row) {
    const y = valuesOf(row), [h, w, n] = row.layer.shape, pixel = (row.cursor.y * w + row.cursor.x) * n, named = nameOf(row.layer) === "activation";
    const z = [...(named ? valuesOf(all()[row.index]) : seen.logits).slice(pixel, pixel + n)], most = Math.max(...z), powers = z.map((v) => Math.exp(v - most)), sum = powers.reduce((a, b) => a + b, 0), shares = powers.map((v) => v / sum);
    const label = (i) => (h * w === 1 && row.index === rows.length - 1 ? machine.classes[i] : String(i)), best = z.indexOf(most);
    return {
      lengths: [1, n, n], unit: 1, find: () => 0,
      about: `Softmax makes shares of 1 out of ${n} sums: each one's exponential, over the sum of all. The largest is subtracted first: the shares are the same, and no number gets too large.${h * w > 1 ? " Of one pixel, the one chosen in the layer." : ""}`,
      draw(i, u) {
        const exps = i ? (i === 1 ? u : n) : 0, divided = i === 2 ? u : 0, so = powers.slice(0, exps).reduce((a, b) => a + b, 0), cell = (text) => make("td", { class: "mono" }, text), current = divided ? divided - 1 : exps ? exps - 1 : best;
        const isStarted = i > 0 || u > 0, isEnd = divided === n, off = Math.max(...shares.map((s, k) => Math.abs(s - y[pixel + k])));
        $("play-stage").replaceChildren(make("div", { class: "scroll" }, make("table", {},
          make("tr", {}, make("th", { class: "text" }, "class"), ...["sum z", "z − largest", "exp", "share"].map((t) => make("th", {}, t))),
          ...z.map((v, k) => make("tr", { class: k === current ? "chosen" : null, "aria-current": k === current ? "step" : null }, make("td", { class: "text" }, `${k === current ? "▸ " : ""}${label(k)}`), cell(short(v)), cell(isStarted ? short(v - most) : ""), cell(k < exps ? short(powers[k]) : ""), cell(k < divided ? percent(shares[k], 2) : ""))),
          make("tr", {}, make("td", { class: "text" }, "all"), cell(""), cell(""), cell(exps ? short(so) : ""), cell(divided ? percent(shares.slice(0, divided).reduce((a, b) => a + b, 0), 2) : "")))));
        return {
          now: !isStarted ? `The ${n} sums that the layer made.` : !i ? `The largest is ${short(most)}, of ${label(best)}: it is subtracted from all.` : divided ? `${label(current)}: ${short(powers[current])} ÷ ${short(sum)} = ${percent(shares[current], 2)}` : `exp(${short(z[current])} − ${short(most)}) = ${short(powers[current])}. The sum so far: ${short(so)}`,
          end: isEnd ? (off <= 1e-5 ? `✓ ${short(most)} became ${percent(shares[best], 1)}. All ${n} shares are the kernel's to within rounding.` : `✗ A share differs from the kernel's by ${short(off)}.`) : "",
        };
      },
    };
  }
  function single(row, answer) {
    const name = nameOf(row.layer), x = valuesOf(all()[row.index]), y = valuesOf(row), known = new Map(), below = all()[row.index].layer.shape, question = { input: { values: seen.values }, layer: row.index + 1, kernels }, asked = seen;
    const spot = (i, [, w, c]) => ({ y: Math.floor(i / (w * c)), x: Math.floor(i / c) % w, c: i % c }), simple = ["flatten", "activation", "dropout"].includes(name);
    const ways = {
      flatten: "Puts the numbers in one row, so that a dense layer can take them all: row by row, in a row pixel by pixel, of a pixel channel by channel. No number changes.",
      dropout: "While it learns it sets some numbers to 0 at random, so that no later layer relies on one of them. In use, as here, it changes nothing.",
      activation: `Each number by itself: ${answer.activation} of it.`,
      batchnorm: "Each channel is brought to a usual size: its mean of the training subtracted, over its spread, times a weight, plus a shift. In use that is one factor and one shift a channel.",
      layernorm: "The channels of each pixel are brought to a usual size: their mean subtracted, over their spread, times a weight, plus a shift.",
      residual: "Adds what its inner layers make of the input to the input itself (or to what the shortcut makes of it).",
    };
    return {
      lengths: list(row.layer.shape[0]).map(() => row.layer.shape[1] * row.layer.shape[2]), unit: 1, find: () => 0, about: ways[name] ?? "Its sums are those that the network tells of.",
      draw(part, u) {
        const i = part * row.layer.shape[1] * row.layer.shape[2] + u - 1, to = spot(Math.max(0, i), row.layer.shape), from = simple ? spot(Math.max(0, i), below) : to, turned = ++turn;
        picture("below", "below", below, x, from.c, i < 0 ? [] : [[from.y, from.x, 1, 1]]);
        picture("out", "made of it", row.layer.shape, y, to.c, i < 0 ? [] : [[to.y, to.x, 1, 1]], (o, c) => o * row.layer.shape[2] + c <= i);
        if (i < 0) return { now: "Nothing is done yet.", end: "" };
        const all = i + 1 === y.length, off = simple ? (name === "activation" ? applied(answer, x[i]) : x[i]) - y[i] : 0, close = (k) => Math.abs((name === "activation" ? applied(answer, x[k]) : x[k]) - y[k]) <= 2 ** -18 * (1 + Math.abs(y[k]));
        if (simple) return {
          now: `${placed(below, from)}: ${short(x[i])}${name === "activation" ? `; ${answer.activation} makes ${short(x[i] + off - x[i] + y[i])} of it` : ` goes to ${placed(row.layer.shape, to)}`}`,
          end: all ? (list(y.length).every(close) ? `✓ All ${grouped(y.length)} numbers are the kernel's${name === "activation" ? " to within rounding" : ""}.` : "✗ Some differ from the kernel's.") : "",
        };
        const tell = (a) => `${placed(row.layer.shape, to)}: ${a.terms.map((t) => (a.kind === "normalised" ? `${short(t.value)} × ${short(t.factor)}` : short(t.value))).join(" + ")}${a.bias ? ` + ${short(a.bias)}` : ""} = ${short(a.sum)}${a.activation !== "none" ? `, ${a.activation}: ${short(a.result)}` : ""}; the kernel's: ${short(a.kernel)} ${a.agrees ? "✓ equal to within rounding" : "✗ they differ"}`;
        if (known.has(i)) return { now: tell(known.get(i)), end: "" };
        ask("provenance", { ...question, at: [to.y, to.x, to.c] }).then((a) => {
          known.set(i, a);
          if (turn === turned && seen === asked) $("play-now").textContent = tell(a);
        }, (error) => { if (turn === turned) $("play-now").textContent = `This layer's sum can't be shown: ${error.message}`; });
        return { now: "…", end: "" };
      },
    };
  }

  // MARK: Pictures
  function slot(name, caption) {
    const s = (slots[name] ??= (() => { const canvas = make("canvas", { role: "img" }), text = make("figcaption"); return { canvas, text, figure: make("figure", {}, canvas, text) }; })());
    if (s.figure.parentElement !== $("play-stage")) $("play-stage").append(s.figure);
    s.text.textContent = caption;
    s.canvas.setAttribute("aria-label", caption);
    return s.canvas;
  }
  const room = () => Math.min(320, Math.max(200, $("play").clientWidth - 40));
  // One channel of a map; a flat one in rows of its own.
  const flatColumns = (n) => Math.min(n, Math.max(10, Math.ceil(Math.sqrt(n))));
  function picture(name, caption, [h, w, c], values, channel, boxes, isThere = () => true) {
    const flat = h * w === 1, columns = flat ? flatColumns(c) : w, lines = flat ? Math.ceil(c / columns) : h;
    if (flat) boxes = boxes.length ? [[Math.floor(channel / columns), channel % columns, 1, 1]] : [];
    const value = (i) => (flat ? (i < c && isThere(0, i) ? values[i] : null) : isThere(i, channel) ? values[i * c + channel] : null);
    grid(slot(name, `${caption}${c > 1 && !flat ? `, channel ${channel} of ${c}` : ""}`), lines, columns, (y, x) => value(y * columns + x), { room: room(), boxes, largest: extent(values).reduce((a, b) => Math.max(a, Math.abs(b)), 1e-12) });
  }
  // Of a large matrix the part around a place.
  function around(length, place, most) {
    const first = Math.max(0, Math.min(length - most, place - Math.floor(most / 2)));
    return [first, Math.min(length, first + most)];
  }

  function drawSums(m, order, f) {
    const warm = dark ? "#fb8b3c" : "#c2410c";
    return (i, u) => {
      const s = order.state(i, u), { outs, fs, k, shown } = s, o = s.gathered > 0 && !k ? (s.matrix === outs ? outs[Math.min(s.gathered, outs.length) - 1] : outs[0]) : outs[0], g = fs.includes(f) ? f : fs[0];
      const tap = Math.max(0, k - 1), c = m.pools ? g : Math.floor(g / (m.F / m.groups)) * m.deep + (tap % m.deep), isGathering = s.matrix && !k, whole = k === m.size;
      const picked = m.name === "maxpool" ? m.winner(o, g, k)[1] : -1;
      $("play-stage").replaceChildren();
      if (m.dense) {
        const columns = flatColumns(m.size), lines = Math.ceil(m.size / columns), box = k ? [[Math.floor(tap / columns), tap % columns, 1, 1]] : [];
        const flat = (name, caption, of) => grid(slot(name, caption), lines, columns, (y, x) => (y * columns + x < m.size ? of(y * columns + x) : null), { room: Math.min(260, room()), boxes: box });
        flat("x", `input, ${m.size} numbers`, (j) => m.x[j]);
        flat("w", `× weights of output ${g}`, (j) => m.weight(g, j));
        flat("products", "= products", (j) => (j < k ? m.x[j] * m.weight(g, j) : null));
      } else {
        const hull = (o) => { const [y, x] = m.place(o, 0); return [y, x, (m.fh - 1) * m.dh + 1, (m.fw - 1) * m.dw + 1]; }, cut = ([y, x, h, w]) => { const [t, l] = [Math.max(0, y), Math.max(0, x)]; return [t, l, Math.min(m.h, y + h) - t, Math.min(m.w, x + w) - l]; };
        const colour = s.group == null ? warm : groupColours[s.group % groupColours.length], many = isGathering && s.matrix === outs ? outs.slice(0, s.gathered) : outs;
        const [y, x] = m.place(o, tap), boxes = [...(many.length > 3000 ? [] : many.map((p) => [...cut(hull(p)), colour])), cut(hull(o))].filter((b) => b[2] > 0 && b[3] > 0);
        if (k && y >= 0 && x >= 0 && y < m.h && x < m.w) boxes.push([y, x, 1, 1, warm]);
        picture("below", "below", [m.h, m.w, m.C], m.x, c, boxes);
        // The window's slice in that channel.
        const ks = (y, x) => (y * m.fw + x) * m.deep + (m.pools ? 0 : tap % m.deep), slice = (name, caption, of, more = {}) => grid(slot(name, caption), m.fh, m.fw, (y, x) => of(ks(y, x)), { room: Math.min(200, room()), high: 200, boxes: k ? [[Math.floor(tap / m.deep / m.fw), Math.floor(tap / m.deep) % m.fw, 1, 1]] : [], ...more });
        const there = (j) => (m.tap(o, g, j) < 0 ? null : m.value(o, g, j)), crown = picked < 0 ? [] : [[Math.floor(picked / m.fw), picked % m.fw, 1, 1, warm]];
        slice("x", m.pools ? "window" : "window, one channel", there, m.pools ? { boxes: [...(k ? [[Math.floor(tap / m.fw), tap % m.fw, 1, 1]] : []), ...crown] } : {});
        if (!m.pools) {
          slice("w", `× weights of filter ${g}`, (j) => m.weight(g, j));
          slice("products", "= products", (j) => (j < k ? (there(j) == null ? null : there(j) * m.weight(g, j)) : null));
        }
      }
      if (s.matrix) {
        const lines = s.matrix.length, [top, bottom] = around(lines, isGathering ? s.gathered - 1 : s.matrix.indexOf(o), 24), [left, right] = around(m.size, tap, 40);
        grid(slot("matrix", `matrix: rows are windows${bottom - top < lines || right - left < m.size ? `, rows ${top}–${bottom - 1} of ${grouped(lines)}, columns ${left}–${right - 1} of ${grouped(m.size)}` : ""}`), bottom - top, right - left, (y, x) => (top + y < s.gathered ? m.value(s.matrix[top + y], g, left + x) : null),
          { room: room(), boxes: k && !s.isDone ? [[0, tap - left, bottom - top, 1, warm]] : isGathering && s.gathered ? [[Math.min(lines, s.gathered) - 1 - top, 0, 1, right - left, warm]] : [] });
      }
      if ((outs.length > 1 || fs.length > 1) && (k || !s.matrix) && !s.isDone && outs.length < 5000) {
        const columns = fs.length > 1 ? fs.length : s.columns ?? (m.pools ? m.ow : 1), starts = !s.matrix && !m.pools;
        grid(slot("sums", fs.length > 1 ? `sums: outputs down, ${m.pools ? "channels" : "filters"} ${fs[0]}–${fs.at(-1)} across` : "sums, one a window"), (outs.length * fs.length) / columns, columns, (y, x) => { const e = y * columns + x, p = outs[Math.floor(e / fs.length)], q = fs[e % fs.length]; return m.pools && !k ? null : m.part(p, q, k) + (starts ? m.bias(q) : 0); }, { room: room(), high: 200 });
      }
      const out = Float64Array.from({ length: m.oh * m.ow * m.F }, () => NaN), flat = m.oh * m.ow === 1;
      for (const p of list(m.oh * m.ow)) for (const q of flat ? list(m.count, m.first) : [g]) out[p * m.F + q] = shown(p, q) ?? NaN;
      picture("out", flat ? "outputs" : "output", [m.oh, m.ow, m.F], m.kernel(0, 0) == null ? out.map((v) => v || 0) : out.map((v) => (Number.isNaN(v) ? 0 : v)), g, k || isGathering ? outs.filter((p) => outs.length < 2000).map((p) => [Math.floor(p / m.ow), p % m.ow, 1, 1, s.group == null ? warm : groupColours[s.group % groupColours.length]]) : [], (p, q) => !Number.isNaN(out[p * m.F + q]));
      return { now: said(m, s, o, g, tap, whole), end: at === order.total ? checked(m, flat ? list(m.count, m.first) : [g]) : "" };
    };
  }
  function said(m, s, o, g, tap, whole) {
    const { k } = s, where = m.dense ? `Output ${g}` : `Output row ${Math.floor(o / m.ow)}, column ${o % m.ow}, ${m.pools ? "channel" : "filter"} ${g}`, inside = m.dense || m.tap(o, g, tap) >= 0;
    const text = [s.said, `${s.outs.length > 1 || s.fs.length > 1 ? "One of them: " : ""}${where}.`];
    const begins = !s.matrix && !m.pools ? m.bias(g) : 0;
    if (!k) text.push(m.pools ? "" : s.matrix ? "" : `The sum begins with the bias ${short(begins)}.`);
    else if (m.name === "maxpool") text.push(`Candidate ${k} of ${m.size}: ${inside ? short(m.value(o, g, tap)) : "outside"}. The largest so far: ${short(m.part(o, g, k) ?? 0)}`);
    else if (m.pools) text.push(`Number ${k} of ${m.size}: ${inside ? short(m.value(o, g, tap)) : "outside"}. Their sum: ${short(m.part(o, g, k))}`);
    else text.push(`Product ${grouped(k)} of ${grouped(m.size)}: ${!inside && !s.said ? "outside the image, left out" : `${inside ? short(m.value(o, g, tap)) : "0 (around the image)"} × ${short(m.weight(g, tap))} = ${short(m.value(o, g, tap) * m.weight(g, tap))}`}. Sum so far: ${short(m.part(o, g, k) + begins)}`);
    if (whole && s.shown(o, g) != null) {
      const { activation } = m.answer, made = s.shown(o, g), kernel = m.kernel(o, g);
      if (s.matrix && !s.isDone) return text.filter(Boolean).join(" ");
      if (!m.pools) text.push(`${s.matrix ? `+ bias ${short(m.bias(g))} = ${short(m.part(o, g, m.size) + m.bias(g))}` : ""}${activation === "none" || activation === "softmax" ? "" : `; ${activation} makes ${short(made)} of it`}.`);
      else if (m.name !== "maxpool") text.push(`÷ ${m.answer.divisors[o]} = ${short(made)}.`);
      if (kernel != null) text.push(`The kernel's: ${short(kernel)} ${m.agrees(o, g) ? "✓ equal to within rounding." : "✗ they differ."}`);
    }
    return text.filter(Boolean).join(" ");
  }
  function checked(m, fs) {
    const pairs = list(m.oh * m.ow).flatMap((o) => fs.map((f) => [o, f]));
    if (m.kernel(0, 0) == null) return "The kernel keeps only the shares that softmax makes of these sums.";
    const wrong = pairs.filter(([o, f]) => !m.agrees(o, f)).length, off = pairs.reduce((most, [o, f]) => Math.max(most, Math.abs(m.finish(o, f) - m.kernel(o, f))), 0);
    return wrong ? `✗ ${grouped(wrong)} of ${grouped(pairs.length)} numbers differ from the kernel's.` : `✓ All ${grouped(pairs.length)} numbers${m.dense ? "" : ` of ${m.pools ? "channel" : "filter"} ${fs[0]}`} are the kernel's to within rounding: the largest difference is ${short(off)}.`;
  }

  // MARK: Choosing
  const chosenOrder = () => $("play-order").value || "naive";
  // Which orders are shown for a layer, and why not the others.
  function offered(row) {
    const name = nameOf(row.layer), [dh, dw] = row.layer.dilation ?? [1, 1], text = row.layer.text;
    if (name.endsWith("pool")) return ["naive", "stride_groups", "direct"];
    if (name !== "conv") return ["naive"];
    return dh * dw > 1 || /groups=(?!1\b)/.test(text) ? ["naive"] : ["naive", "stride_groups", "im2col", "direct"];
  }
  const words = { naive: "naive: one after another", stride_groups: "stride groups", im2col: "im2col", direct: "direct" };
  function about(m, order, filters) {
    const [high, lanes] = tile(), what = m.pools ? "channel" : "filter", only = m.F > filters.length && !m.dense ? ` Of ${m.F} ${what}s one is shown.` : "";
    if (m.dense) return `Each output is the sum of all ${grouped(m.size)} numbers times its weights. The kernel adds ${lanes} products at a time into ${lanes} sums side by side and these at the end; the result is the same to within rounding.`;
    if (m.pools) return { naive: `Window by window, ${m.name === "maxpool" ? "the first largest number goes on" : "the mean goes on"}.`, stride_groups: "One element of all windows at once is folded into the outputs, then the next element.", direct: `Window by window, ${lanes} channels at once in one vector.` }[order] + only;
    const alone = offered(row).length === 1 ? " The other kernels first cut such a layer (dilation, groups of channels) into plain ones; that isn't shown." : " Winograd's products are of transformed numbers and aren't shown.";
    return { naive: "The definition: one output after another, in the window row by row, column by column, channel by channel. What lies outside the image is left out.", stride_groups: `Windows that don't overlap are gathered as the rows of a matrix${m.fw * m.C >= 16 && !m.top && !m.left ? " (here straight into the order in which they are read)" : ""} and multiplied by the weights together; then the next group. The product runs in tiles of up to ${high} rows by ${2 * lanes} filters.`, im2col: `Every window is written as a row of one matrix, which is then multiplied by the weights, in tiles of up to ${high} rows by ${2 * lanes} filters.`, direct: `Nothing is copied (only zeros around the image, if there are any): up to ${high} outputs by ${2 * lanes} filters are summed at once, straight from the input. Rows of the window that meet only such zeros are left out.` }[order] + only + alone;
  }
  function chooseLayer(value) {
    const isLast = value.endsWith("s");
    row = rows[parseInt(value)];
    $("play-layer").value = value;
    const name = nameOf(row.layer), sums = !isLast && (name.endsWith("pool") || row.layer.window || !["flatten", "activation", "dropout", "batchnorm", "layernorm", "residual"].includes(name));
    const before = chosenOrder(), possible = sums ? offered(row) : [];
    $("play-order").replaceChildren(...possible.map((o) => make("option", { value: o, selected: o === before }, words[o])));
    $("play-order").parentElement.hidden = possible.length < 2;
    const F = row.layer.shape[2], all = name.endsWith("pool") || row.layer.parameters <= 2e6;
    $("play-filter").replaceChildren(...(all ? [make("option", { value: "all" }, "all, in turn")] : []), ...list(F).map((f) => make("option", { value: f, selected: f === 0 && !(all && F === row.layer.shape.reduce((a, b) => a * b, 1)) }, f)));
    $("play-which").hidden = !sums;
    at = 0;
    stale = true;
  }
  async function prepare(place) {
    if (!row || !seen) return;
    const asked = seen, value = $("play-layer").value, order = chosenOrder(), number = ++turn, name = nameOf(row.layer);
    if (order !== "naive" && $("play-filter").value === "all") $("play-filter").value = 0;
    if ($("play-filter").firstElementChild?.value === "all") $("play-filter").firstElementChild.disabled = order !== "naive";
    const chosen = $("play-filter").value, F = row.layer.shape[2], f = chosen === "all" ? 0 : +chosen;
    let next;
    if (value.endsWith("s")) next = softmax(row);
    else {
      const across = order === "direct" ? 2 * tile()[1] : 1, first = chosen === "all" ? 0 : Math.floor(f / across) * across, count = chosen === "all" ? F : Math.min(across, F - first);
      const many = $("play-which").hidden || name.endsWith("pool") ? {} : { first, count }, answer = await ask("weights", { layer: row.index + 1, ...many });
      if (seen !== asked || turn !== number) return;
      // Numbers of other weights would not fit: while it learns, this waits.
      if (answer.weights !== seen.weights) { $("play-about").textContent = "The network is learning. What it computes is shown here when it stops."; return; }
      answer.values = floats(answer.values);
      if ($("play-which").hidden) next = single(row, answer);
      else {
        const m = windows(row, answer, first), filters = chosen === "all" ? list(F) : [f];
        next = orders[order](m, filters);
        next.draw = drawSums(m, next, f);
        next.about = about(m, order, filters);
      }
    }
    let sum = 0;
    next.starts = next.lengths.map((length) => (sum += length) - length);
    next.total = sum;
    if (model?.total !== sum) at = 0;
    if (place) at = next.find(place.o, place.f);
    model = next;
    stale = false;
    $("play-about").textContent = next.about;
    $("play-at").max = sum;
    show();
  }
  // Which part step `at` is in, and how far: a part's last step still belongs to it.
  function inside(t) {
    let [low, high] = [0, model.starts.length - 1];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (model.starts[middle] < t) low = middle;
      else high = middle - 1;
    }
    return [low, t - model.starts[low]];
  }
  function show() {
    const { now, end } = model.draw(...inside(at));
    $("play-now").textContent = now;
    $("play-end").textContent = end;
    $("play-end").style.color = end.startsWith("✗") ? "var(--bad)" : end.startsWith("✓") ? "var(--good)" : "";
    $("play-at").value = at;
    $("play-at").setAttribute("aria-valuetext", `step ${grouped(at)} of ${grouped(model.total)}`);
    $("play-count").textContent = `step ${grouped(at)} of ${grouped(model.total)}`;
    $("play-back").disabled = $("play-start").disabled = at === 0;
    $("play-next").disabled = $("play-end-button").disabled = at === model.total;
  }
  // The next step, or the end of an output or of a row of the map.
  function after(t, by) {
    const ends = (t) => { const [i] = inside(t + 1); return model.starts[i] + model.lengths[i]; };
    if (by === "row") return Math.min(model.total, ends(t));
    if (by !== "output") return Math.min(model.total, t + 1);
    const [i, u] = inside(t + 1), v = u - 1, end = model.jump ? model.jump(i, v) || v + 1 : (Math.floor(v / model.unit) + 1) * model.unit;
    return Math.min(ends(t), model.starts[i] + end);
  }
  function before(t, by) {
    if (by !== "row" && by !== "output") return Math.max(0, t - 1);
    const [i, u] = inside(t);
    if (by === "row" || model.jump) {
      let found = model.starts[i];
      if (by === "output") for (let next = found; (next = after(next, by)) < t; ) found = next;
      return found;
    }
    return model.starts[i] + Math.max(0, Math.ceil(u / model.unit) - 1) * model.unit;
  }
  function step(by = 1) {
    if (!model) return;
    pause();
    at = by < 0 ? before(at, $("play-speed").value) : after(at, $("play-speed").value);
    show();
  }
  function pause() {
    cancelAnimationFrame(frame);
    frame = 0;
    $("play-go").textContent = "Play";
    $("play-now").setAttribute("aria-live", "polite");
  }
  function go() {
    if (!model) return;
    if (frame) { pause(); return; }
    if (isStill()) return;
    if (at === model.total) at = 0;
    $("play-go").textContent = "Pause";
    // Read out would be what is long past.
    $("play-now").setAttribute("aria-live", "off");
    [last, owed] = [performance.now(), 0];
    const tick = (now) => {
      const speed = $("play-speed").value, rate = +speed || 5;
      owed += ((now - last) / 1000) * rate;
      last = now;
      const t = at;
      if (+speed) at = Math.min(model.total, at + Math.floor(owed));
      else if (owed >= 1) at = after(at, speed);
      owed %= 1;
      if (at !== t) show();
      if (at < model.total) frame = requestAnimationFrame(tick);
      else pause();
    };
    frame = requestAnimationFrame(tick);
  }
  function seek(t) {
    if (!model) return;
    pause();
    at = Math.max(0, Math.min(model.total, t));
    show();
  }
  const again = (place) => { pause(); return tell(prepare(place)); };

  $("play-layer").addEventListener("change", () => { chooseLayer($("play-layer").value); again(); });
  for (const id of ["play-order", "play-filter"]) $(id).addEventListener("change", () => { at = 0; model = null; again(); });
  $("play-go").addEventListener("click", go);
  $("play-next").addEventListener("click", () => step());
  $("play-back").addEventListener("click", () => step(-1));
  $("play-start").addEventListener("click", () => seek(0));
  $("play-end-button").addEventListener("click", () => seek(model?.total));
  $("play-at").addEventListener("input", () => seek(+$("play-at").value));
  redraws.add(() => { if (model && seen) show(); });
  addEventListener("resize", () => { if (model && seen) show(); });
  const still = matchMedia("(prefers-reduced-motion: reduce)"), settle = () => { $("play-go").hidden = still.matches; if (still.matches) pause(); };
  still.addEventListener("change", settle);
  settle();
  // What nobody sees isn't asked for.
  new IntersectionObserver(([entry]) => { inSight = entry.isIntersecting; if (inSight && stale) again(); }).observe($("play"));

  views.push({
    built() {
      pause();
      [model, row] = [null, null];
      $("play-layer").replaceChildren(...rows.flatMap((r) => [make("option", { value: r.index }, `${r.index + 1}  ${r.layer.text}`), ...(isSoftmax(r) ? [make("option", { value: `${r.index}s` }, `${r.index + 1}  softmax: from sums to shares`)] : [])]));
      if (rows[0] && nameOf(rows[0].layer) === "activation" && isSoftmax(rows[0])) chooseLayer("0s");
      else chooseLayer("0");
    },
    looked(isNew) {
      $("play").hidden = false;
      if (isNew) stale = true;
      if (stale && inSight) tell(prepare());
    },
    trained(now) { if (!now.is_running && stale && inSight) tell(prepare()); },
    blank() { pause(); model = null; stale = true; $("play").hidden = true; },
  });

  return {
    step, go, pause, seek,
    get at() { return at; },
    get total() { return model?.total ?? 0; },
    // A layer (its row's index) in an order, "softmax" for what it makes of the sums; of one output, if given.
    async show(index, order, place) {
      if (!seen) throw refusal("Draw something first, or take a test digit.");
      const soft = order === "softmax" || (nameOf(rows[index].layer) === "activation" && isSoftmax(rows[index]));
      pause();
      if (order && order !== "softmax") $("play-order").replaceChildren(make("option", { value: order }));
      chooseLayer(`${index}${soft ? "s" : ""}`);
      model = null;
      if (place && !$("play-which").hidden) $("play-filter").value = place.c;
      $("play").scrollIntoView({ behavior: isStill() ? "auto" : "smooth" });
      await prepare(place && !$("play-which").hidden ? { o: place.y * rows[index].layer.shape[1] + place.x, f: place.c } : null);
    },
  };
})();
