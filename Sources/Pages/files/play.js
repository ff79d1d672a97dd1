// SPDX-License-Identifier: MIT
// How a layer computes, number by number: the window slides, multiplies and adds, in the order of the
// kernels (CKernels/). The sums are made here, of the layer's input and weights, and held against what
// the kernel made.

// Numbers as squares, with digits in them where there is room; what is null isn't there yet. Boxes are
// [row, column, height, width, colour, dashes].
function grid(canvas, rows, columns, at, { room = 300, high = 340, largest = null, boxes = [] } = {}) {
  const zoom = Math.max(1, Math.min(36, Math.floor(room / columns), Math.floor(high / rows))), sharp = Math.ceil(devicePixelRatio);
  const values = Array.from({ length: rows * columns }, (_, i) => at(Math.floor(i / columns), i % columns)), most = largest ?? Math.max(1e-12, ...extent(values).map(Math.abs));
  canvas.width = columns * zoom * sharp; canvas.height = rows * zoom * sharp;
  Object.assign(canvas.style, { width: `${columns * zoom}px`, maxWidth: "100%", height: "auto" });
  const context = canvas.getContext("2d");
  context.scale(sharp, sharp);
  Object.assign(context, { font: "11px sans-serif", textAlign: "center", textBaseline: "middle", lineWidth: 2 });
  values.forEach((value, i) => {
    if (value == null) return;
    const y = Math.floor(i / columns) * zoom, x = (i % columns) * zoom, share = Math.max(-1, Math.min(1, value / most));
    const pixel = colours.pixels[255 + Math.round(255 * share)];
    context.fillStyle = `rgb(${pixel & 255}, ${(pixel >> 8) & 255}, ${(pixel >> 16) & 255})`;
    context.fillRect(x, y, zoom, zoom);
    if (zoom < 28) return;
    context.fillStyle = Math.abs(share) > 0.45 !== dark ? "#fff" : "#000";
    context.fillText(Math.abs(value) >= 100 ? value.toFixed(0) : String(+value.toFixed(2)), x + zoom / 2, y + zoom / 2);
  });
  for (const [y, x, h, w, stroke, dashes] of boxes) {
    context.strokeStyle = stroke ?? (dark ? "#fff" : "#000");
    context.setLineDash(dashes ?? []);
    context.strokeRect(x * zoom + 1, y * zoom + 1, w * zoom - 2, h * zoom - 2);
  }
}

const play = (() => {
  let row = null, model = null, at = 0, frame = 0, stale = true, inSight = false, turn = 0;
  const slots = {}, still = matchMedia("(prefers-reduced-motion: reduce)"), stage = $("play-stage"), speed = $("play-speed"), filter = $("play-filter");
  const nameOf = (row) => row.layer.text.match(/^\w+/)[0], list = (count, first = 0) => Array.from({ length: count }, (_, i) => first + i), { floor, ceil, min, max, abs, exp } = Math;
  const isSoftmax = (row) => /\bsoftmax\b/.test(row.layer.text) && !/^residual/.test(row.layer.text) && (row.index === rows.length - 1 || nameOf(row) === "activation");
  // Outputs and numbers of a vector that the registers hold: CK_MR, CK_LANES.
  const tile = () => (/512/.test(machine.isa) ? [14, 16] : /avx2/.test(machine.isa) ? [6, 8] : /neon/.test(machine.isa) ? [8, 4] : [4, 4]);
  const functions = {
    relu: (x) => max(0, x), leaky_relu: (x, slope) => (x > 0 ? x : slope * x), elu: (x) => (x > 0 ? x : Math.expm1(x)), sigmoid: (x) => 1 / (1 + exp(-x)), tanh: Math.tanh,
    softplus: (x) => max(0, x) + Math.log1p(exp(-abs(x))), silu: (x) => x / (1 + exp(-x)),
    gelu(x) {
      // erf by its series; beyond 6 it is 1.
      const z = min(6, abs(x) / Math.SQRT2);
      let sum = z;
      for (let n = 1, term = z; n < 200; n++) sum += term *= (2 * z * z) / (2 * n + 1);
      return (x / 2) * (1 + (Math.sign(x) * 2 * exp(-z * z) * sum) / Math.sqrt(Math.PI));
    },
  };

  // MARK: What is computed: each output o of filter f a sum, a maximum or a mean of what its window meets
  function windows(row, { activation, slope, values, bias, divisors }, first) {
    const { layer } = row, under = all()[row.index], [h, w, C] = under.layer.shape, x = valuesOf(under), y = valuesOf(row), name = nameOf(row), [oh, ow, F] = layer.shape;
    const pools = name.endsWith("pool"), largest = name === "maxpool", dense = !layer.window, [fh, fw] = layer.window ?? [1, 1], [sh, sw] = layer.stride ?? [1, 1], [top, left] = layer.start ?? [0, 0], [dh, dw] = layer.dilation ?? [1, 1];
    const size = pools ? fh * fw : values.length / bias.length, deep = size / (fh * fw), made = list(F).map(() => []), logits = activation !== "softmax" ? y : isSoftmax(row) ? seen.logits : null;
    const m = {
      pools, largest, dense, oh, ow, F, h, w, C, fh, fw, sh, sw, top, left, size, deep, x, activation, divisors, first, count: pools ? F : bias.length, most: max(1e-12, ...extent(y).map(abs)),
      span: [(fh - 1) * dh + 1, (fw - 1) * dw + 1],
      place: (o, k) => [floor(o / ow) * sh + floor(k / (deep * fw)) * dh - top, (o % ow) * sw + (floor(k / deep) % fw) * dw - left],
      channel: (f, k) => (pools ? f : floor((f * C) / deep / F) * deep + (k % deep)),
      // Null outside of the input, where zeros are.
      value(o, f, k) {
        const [i, j] = m.place(o, k);
        return i < 0 || j < 0 || i >= h || j >= w ? null : x[(i * w + j) * C + m.channel(f, k)];
      },
      weight: (f, k) => (pools ? 1 : values[(f - first) * size + k]),
      bias: (f) => (pools ? 0 : bias[f - first]),
      // Of k candidates the first largest.
      winner(o, f, k) {
        let best = -1;
        for (let i = 0; i < k; i++) if (m.value(o, f, i) != null && !(best >= 0 && m.value(o, f, i) <= m.value(o, f, best))) best = i;
        return best;
      },
      part(o, f, k) {
        if (largest) return m.value(o, f, m.winner(o, f, k));
        let sum = 0;
        for (let i = 0; i < k; i++) sum += (m.value(o, f, i) ?? 0) * m.weight(f, i);
        return sum;
      },
      finish: (o, f) => (made[f][o] ??= largest ? m.part(o, f, size) : pools ? m.part(o, f, size) / divisors[o] : (functions[activation] ?? ((x) => x))(m.part(o, f, size) + m.bias(f), slope)),
      kernel: (o, f) => logits?.[o * F + f],
      // Within rounding: an addition errs by 2⁻²⁴ of its result at most.
      agrees(o, f) {
        let sizes = abs(m.bias(f));
        for (let k = 0; k < size; k++) sizes += abs((m.value(o, f, k) ?? 0) * m.weight(f, k));
        return abs(m.finish(o, f) - m.kernel(o, f)) <= 2 * (size + 2) * 2 ** -24 * sizes + 2 ** -20 * abs(m.finish(o, f));
      },
    };
    return m;
  }

  // MARK: Orders: parts of so many steps each (rows of the map, groups, tiles). After `u` steps of part
  // `i`: which outputs and filters are under way, k products of each done, and what of the output is there.
  const orders = {
    naive(m, filters) {
      const n = filters.length, across = m.dense ? 1 : m.ow * n, K = m.size;
      return {
        lengths: Array((m.oh * m.ow * n) / across).fill(across * K), unit: K, find: (o, f) => (o * n + max(0, filters.indexOf(f))) * K,
        state(i, u) {
          const e = i * across + max(0, ceil(u / K) - 1), k = u - (e - i * across) * K;
          return { outs: [floor(e / n)], fs: [filters[e % n]], k, shown: (p, g) => (p * n + filters.indexOf(g) < e + (k === K) ? m.finish(p, g) : null) };
        },
      };
    },
    stride_groups(m, fs) {
      if (m.pools) return { lengths: [m.size], unit: 1, find: () => 0, state: (_, k) => ({ outs: list(m.oh * m.ow), fs, k, shown: (p, g) => (k === m.size ? m.finish(p, g) : k ? m.part(p, g, k) / (m.largest ? 1 : m.divisors[p]) : null) }) };
      const down = ceil(m.fh / m.sh), right = ceil(m.fw / m.sw), across = min(right, m.ow), groups = list(min(down, m.oh) * across).map(() => []);
      const number = (o) => (floor(o / m.ow) % down) * across + ((o % m.ow) % right), length = (outs) => outs.length + m.size + 1;
      for (const o of list(m.oh * m.ow)) groups[number(o)].push(o);
      return {
        lengths: groups.map(length), unit: 1, find: (o) => groups.slice(0, number(o)).reduce((sum, outs) => sum + length(outs), 0),
        jump: (i, u) => [groups[i].length, length(groups[i]) - 1, Infinity].find((end) => end > u),
        state(i, u) {
          const outs = groups[i], k = max(0, min(m.size, u - outs.length)), isDone = u === length(outs), gathered = min(u, outs.length);
          return { outs, fs, k, group: i, columns: ceil((m.ow - (i % across)) / right), matrix: outs, gathered, isDone, shown: (p, g) => (number(p) < i + isDone ? m.finish(p, g) : null),
            said: `Group ${i + 1} of ${groups.length}, ${outs.length} window${outs.length > 1 ? "s" : ""} that don't overlap. ${!k ? `Gathering: ${gathered} of them are rows of the matrix.` : isDone ? "The bias is added, and the results go to their places in the map." : "All rows are multiplied by the same weight at once."}` };
        },
      };
    },
    im2col(m, fs) {
      const count = m.oh * m.ow, matrix = list(count), parts = list(m.oh).map(() => ({ steps: m.ow })), [high] = tile(), block = high * floor(112 / high);
      // As the matrix product has it (gemm.inc.h): blocks of 512 products, tiles of nearly equal height.
      for (let from = 0; from < m.size; from += 512)
        for (let first = 0; first < count; first += block) {
          const lines = min(block, count - first), height = ceil(lines / ceil(lines / high));
          for (let i = 0; i < lines; i += height) parts.push({ steps: min(512, m.size - from), from, outs: list(min(height, lines - i), first + i) });
        }
      parts.push({ steps: 1, from: m.size });
      return {
        lengths: parts.map((p) => p.steps), unit: 1, find: (o) => o, jump: (i) => (i < m.oh ? 0 : Infinity),
        state(i, u) {
          const { outs, from } = parts[i], gathered = i < m.oh ? i * m.ow + u : count, isLast = from === m.size, k = outs ? from + u : isLast ? m.size : 0, isDone = isLast && u > 0;
          const raw = isLast ? count : outs && from + 512 >= m.size ? outs[0] + (k === m.size ? outs.length : 0) : 0;
          return { outs: outs ?? (isLast ? matrix : [max(0, gathered - 1)]), fs, k, matrix, gathered, isDone, shown: (p, g) => (isDone ? m.finish(p, g) : p < raw ? m.part(p, g, m.size) : null),
            said: i < m.oh ? `Writing the matrix: ${gathered} of ${grouped(count)} windows are rows of it.` : isLast ? "The bias is added to all of the product." : `Rows times weights: rows ${outs[0]} to ${outs.at(-1)} are a tile whose sums stay in the registers.` };
        },
      };
    },
    direct(m, [f]) {
      const [high, lanes] = tile(), panel = m.pools ? lanes : 2 * lanes, first = floor(f / panel) * panel, fs = list(min(panel, m.F - first), first);
      const width = m.pools ? 1 : ceil(m.ow / ceil(m.ow / high)), tiles = ceil(m.ow / width), K = m.size;
      return {
        lengths: Array(m.oh).fill(tiles * K), unit: K, find: (o) => (floor(o / m.ow) * tiles + floor((o % m.ow) / width)) * K,
        state(i, u) {
          const number = max(0, ceil(u / K) - 1), k = u - number * K, start = i * m.ow + number * width, outs = list(min(width, m.ow - number * width), start);
          return { outs, fs, k, shown: (p, g) => (p < start + (k === K ? outs.length : 0) ? m.finish(p, g) : null),
            said: `A tile of ${outs.length} output${outs.length > 1 ? "s" : ""} by ${fs.length} ${m.pools ? "channels" : "filters"} stays in the registers while the windows' numbers stream by.` };
        },
      };
    },
  };

  // MARK: From sums to shares; and other layers, as the network tells of their numbers
  function softmax(row) {
    const [h, w, n] = row.layer.shape, pixel = (row.cursor.y * w + row.cursor.x) * n, of = (values) => [...values].slice(pixel, pixel + n), add = (values) => values.reduce((a, b) => a + b, 0);
    const y = of(valuesOf(row)), z = of(nameOf(row) === "activation" ? valuesOf(all()[row.index]) : seen.logits), most = max(...z), powers = z.map((v) => exp(v - most)), sum = add(powers), shares = powers.map((v) => v / sum);
    const label = (i) => (h * w === 1 && row.index === rows.length - 1 ? machine.classes[i] : i), best = z.indexOf(most);
    return {
      lengths: [1, n, n], unit: 1,
      about: `Softmax makes shares of 1 out of ${n} sums: each one's exponential, over the sum of all. The largest is subtracted first: the shares stay the same, and no number gets too large.${h * w > 1 ? " Here those of the pixel chosen in the layer." : ""}`,
      draw(i, u) {
        const exps = i ? (i === 1 ? u : n) : 0, divided = i === 2 ? u : 0, now = (divided || exps || best + 1) - 1, cell = (shows, text) => make("td", { class: "mono" }, shows ? text : "");
        stage.replaceChildren(make("div", { class: "scroll" }, make("table", {}, make("tr", {}, make("th", { class: "text" }, "class"), ...["sum z", "z − largest", "exp", "share"].map((t) => make("th", {}, t))),
          ...z.map((v, k) => make("tr", { class: k === now ? "chosen" : null }, make("td", { class: "text" }, `${k === now ? "▸ " : ""}${label(k)}`), cell(1, short(v)), cell(i || u, short(v - most)), cell(k < exps, short(powers[k])), cell(k < divided, percent(shares[k], 2)))),
          make("tr", {}, make("td", { class: "text" }, "all"), cell(), cell(), cell(exps, short(add(powers.slice(0, exps)))), cell(divided, percent(add(shares.slice(0, divided)), 2))))));
        if (divided) return [`${label(now)}: ${short(powers[now])} ÷ ${short(sum)} = ${percent(shares[now], 2)}`, divided < n ? "" : shares.every((s, k) => abs(s - y[k]) <= 1e-5) ? `✓ ${short(most)} became ${percent(shares[best])}. All ${n} shares are the kernel's to within rounding.` : "✗ The kernel's shares differ."];
        return [exps ? `exp(${short(z[now])} − ${short(most)}) = ${short(powers[now])}. Their sum so far: ${short(add(powers.slice(0, exps)))}` : u ? `The largest is ${short(most)}, of ${label(best)}: it is subtracted from all.` : `The ${n} sums that the layer made.`, ""];
      },
    };
  }
  function single(row) {
    const [h, w, c] = row.layer.shape, below = all()[row.index], known = [], asked = seen, at3 = ([y, x, c]) => ({ y, x, c });
    let isAsking = false;
    const ways = {
      flatten: "Puts the numbers in one row, for a dense layer to take them all: row by row, in a row pixel by pixel, of a pixel channel by channel. No number changes.",
      dropout: "While it learns it sets some numbers to 0 at random, so that no layer relies on a single one. In use, as here, it changes nothing.",
      activation: "A function of each number by itself.",
      batchnorm: "Brings each channel to a usual size: minus its mean in training, over its spread, times a weight, plus a shift. In use that is one factor and one shift a channel.",
      layernorm: "Brings the channels of each pixel to a usual size: minus their mean, over their spread, times a weight, plus a shift.",
      residual: "Adds what its inner layers make of the input to the input itself, or to what its shortcut makes of it.",
    };
    const next = {
      lengths: Array(h).fill(w * c), unit: c, find: (o, f) => o * c + f + 1, about: ways[nameOf(row)] ?? "Each number as the network tells of it.",
      draw() {
        const i = at - 1, to = [floor(i / (w * c)), floor(i / c) % w, i % c], a = known[i], from = a?.terms[0].from;
        stage.replaceChildren();
        picture("below", "below", below.layer.shape, (j) => valuesOf(below)[j], from?.[2] ?? 0, from ? [[from[0], from[1], 1, 1]] : []);
        picture("out", "made of it", row.layer.shape, (j) => (j <= i ? valuesOf(row)[j] : null), max(0, to[2]), i < 0 ? [] : [[to[0], to[1], 1, 1]]);
        if (a) return [`${placed(below.layer.shape, at3(from))} below: ${a.terms.map((t) => (t.factor === 1 ? short(t.value) : `${short(t.value)} × ${short(t.factor)}`)).join(" + ")}${a.bias ? ` + ${short(a.bias)}` : ""}${a.terms.length > 1 || a.bias ? ` = ${short(a.sum)}` : ""}${a.activation === "none" ? "" : `, ${a.activation} of it ${short(a.result)}`}. The kernel's ${placed(row.layer.shape, at3(to))}: ${short(a.kernel)} ${a.agrees ? "✓ equal to within rounding." : "✗ they differ."}`, ""];
        if (i < 0) return ["Nothing is done yet.", ""];
        if (!isAsking) {
          isAsking = true;
          tell(ask("provenance", { input: { values: seen.values }, layer: row.index + 1, kernels, at: to }).then((found) => { known[i] = found; }).finally(() => { isAsking = false; }).then(() => { if (model === next && seen === asked) show(); }));
        }
        return ["…", ""];
      },
    };
    return next;
  }

  // MARK: Pictures
  const room = () => min(320, max(200, $("play").clientWidth - 40));
  function draw(name, caption, ...drawing) {
    const s = (slots[name] ??= { canvas: make("canvas", { role: "img" }), text: make("figcaption") });
    s.figure ??= make("figure", {}, s.canvas, s.text);
    stage.append(s.figure);
    s.canvas.setAttribute("aria-label", (s.text.textContent = caption));
    grid(s.canvas, ...drawing);
    s.figure.style.width = `min(100%, max(92px, ${s.canvas.style.width}))`;
  }
  const folded = (count) => min(count, max(10, ceil(Math.sqrt(count))));
  // One channel of a map; numbers in a row are folded.
  function picture(name, caption, [h, w, c], value, channel, boxes, largest) {
    if (h * w > 1) return draw(name, `${caption}${c > 1 ? `, channel ${channel} of ${c}` : ""}`, h, w, (y, x) => value((y * w + x) * c + channel), { room: room(), boxes, largest });
    const columns = folded(c);
    draw(name, caption, ceil(c / columns), columns, (y, x) => (y * columns + x < c ? value(y * columns + x) : null), { room: room(), boxes: boxes.length ? [[floor(channel / columns), channel % columns, 1, 1]] : [], largest });
  }
  // Of what is long the part around a place.
  function around(length, place, most) {
    const first = max(0, min(length - most, place - floor(most / 2)));
    return [first, min(length, first + most)];
  }
  function drawSums(m, order, chosen) {
    const s = order.state(...inside(at)), { outs, fs, k, matrix, gathered, isDone } = s, isGathering = matrix && !k, o = isGathering && matrix === outs ? outs[max(0, gathered - 1)] : outs[0], f = fs.includes(chosen) ? chosen : fs[0];
    const tap = max(0, k - 1), warm = dark ? "#fb8b3c" : "#c2410c", colour = s.group == null ? warm : groupColours[s.group % groupColours.length], flat = m.oh * m.ow === 1;
    const cells = (k || isGathering) && outs.length < 3000 ? outs : [];
    const drawOutput = () => picture("out", flat ? "outputs" : "output", [m.oh, m.ow, m.F], (i) => (!flat || (i >= m.first && i < m.first + m.count) ? s.shown(floor(i / m.F), i % m.F) : null), f, cells.map((p) => [floor(p / m.ow), p % m.ow, 1, 1, colour]), m.kernel(0, 0) == null ? null : m.most);
    stage.replaceChildren();
    const value = (j) => m.value(o, f, j), product = (j) => (j < k && value(j) != null ? value(j) * m.weight(f, j) : null), box = (j, columns, ...more) => [floor(j / columns), j % columns, 1, 1, ...more];
    const [lines, columns, index] = m.dense ? [ceil(m.size / folded(m.size)), folded(m.size), (i) => i] : [m.fh, m.fw, (i) => i * m.deep + (tap % m.deep)], boxes = k ? [box(floor(tap / (m.dense ? 1 : m.deep)), columns)] : [];
    if (!m.dense) {
      const cut = (o) => { const [y, x] = m.place(o, 0), [t, l] = [max(0, y), max(0, x)]; return [t, l, min(m.h, y + m.span[0]) - t, min(m.w, x + m.span[1]) - l]; }, [y, x] = m.place(o, tap);
      const windows = [...(isGathering && matrix === outs ? outs.slice(0, gathered) : cells).map((p) => [...cut(p), colour]), cut(o), ...(k && value(tap) != null ? [[y, x, 1, 1, warm]] : [])];
      const c = m.channel(f, tap);
      picture("below", "below", [m.h, m.w, m.C], (i) => m.x[i], c, windows.filter((b) => b[2] > 0 && b[3] > 0));
      drawOutput();
      stage.append(make("i"));
      if (m.largest && k && m.winner(o, f, k) >= 0) boxes.push(box(m.winner(o, f, k), columns, warm, [4, 3]));
    }
    const strip = (name, caption, of, largest = null) => draw(name, caption, lines, columns, (y, x) => (y * columns + x < (m.dense ? m.size : m.fh * m.fw) ? of(index(y * columns + x)) : null), { room: m.dense ? min(260, room()) : min(200, room() / 3 - 8), high: m.dense ? 260 : 200, boxes, largest });
    strip("x", m.dense ? `input, ${grouped(m.size)} numbers` : m.largest ? "window; the largest so far: dashed" : m.C > 1 && !m.pools ? "window, one channel" : "window", value, max(1e-12, ...extent(m.x).map(abs)));
    if (!m.pools) {
      strip("w", `× weights of ${m.dense ? "output" : "filter"} ${f}`, (j) => m.weight(f, j));
      strip("products", "= products", product, list(m.size).reduce((most, j) => max(most, abs((value(j) ?? 0) * m.weight(f, j))), 1e-12));
    }
    if (matrix) {
      const [top, bottom] = around(matrix.length, isGathering ? gathered - 1 : matrix.indexOf(o), 24), [left, right] = around(m.size, tap, 40), part = bottom - top < matrix.length || right - left < m.size ? `: rows ${top}–${bottom - 1} of ${grouped(matrix.length)}, columns ${left}–${right - 1} of ${grouped(m.size)}` : "";
      draw("matrix", `matrix, a window a row${part}`, bottom - top, right - left, (y, x) => (top + y < gathered ? m.value(matrix[top + y], f, left + x) ?? 0 : null), { room: room(), boxes: isDone || !gathered ? [] : k ? [[0, tap - left, bottom - top, 1, warm]] : [[gathered - 1 - top, 0, 1, right - left, warm]] });
    }
    if (outs.length * fs.length > 1 && k && !isDone && outs.length < 3000) {
      const across = fs.length > 1 ? fs.length : s.columns ?? (m.pools ? m.ow : 1);
      draw("sums", fs.length > 1 ? `${m.pools ? "so far" : "sums"}: outputs down, ${m.pools ? "channels" : "filters"} ${fs[0]}–${fs.at(-1)} across` : "sums, one a window", (outs.length * fs.length) / across, across, (y, x) => { const e = y * across + x, q = fs[e % fs.length]; return m.part(outs[floor(e / fs.length)], q, k) + (matrix ? 0 : m.bias(q)); }, { room: room(), high: 200 });
    }
    if (m.dense) drawOutput();
    return [said(m, s, o, f, tap, value(tap)), at < model.total ? "" : checked(m, flat ? list(m.count, m.first) : [f])];
  }
  function said(m, { outs, fs, k, matrix, isDone, said, shown }, o, f, tap, value) {
    const text = [said, outs.length * fs.length > 1 && "One of them:", m.dense ? `Output ${f}.` : `Output row ${floor(o / m.ow)}, column ${o % m.ow}, ${m.pools ? "channel" : "filter"} ${f}.`], bias = m.bias(f), n = `${grouped(k)} of ${grouped(m.size)}`, sum = k && m.part(o, f, k) + (matrix ? 0 : bias);
    if (isDone) text.push(`${short(sum)} + bias ${short(bias)} = ${short(sum + bias)}.`);
    else if (!k) text.push(!m.pools && !matrix && `The sum begins with the bias, ${short(bias)}.`);
    else if (m.pools) text.push(`${m.largest ? "Candidate" : "Number"} ${n}: ${value == null ? "outside" : short(value)}. ${m.largest ? "The largest so far" : "Their sum"}: ${short(sum ?? 0)}.`);
    else text.push(`Product ${n}: ${value == null && !said ? "outside the image, left out" : `${value == null ? "0 around the image" : short(value)} × ${short(m.weight(f, tap))} = ${short((value ?? 0) * m.weight(f, tap))}`}. Sum so far: ${short(sum)}.`);
    if (k === m.size && (!matrix || isDone) && shown(o, f) != null) {
      const kernel = m.kernel(o, f);
      text.push(m.pools && !m.largest && `÷ ${m.divisors[o]}.`, m.activation in functions && `Then ${m.activation}.`, `The result: ${short(shown(o, f))}.`, kernel != null && `The kernel's: ${short(kernel)} ${m.agrees(o, f) ? "✓ equal to within rounding." : "✗ they differ."}`);
    }
    return text.filter(Boolean).join(" ");
  }
  function checked(m, fs) {
    if (m.kernel(0, 0) == null) return "Of these sums the kernel keeps only the shares that softmax makes of them.";
    const pairs = list(m.oh * m.ow).flatMap((o) => fs.map((f) => [o, f])), wrong = pairs.filter(([o, f]) => !m.agrees(o, f)).length, off = pairs.reduce((most, [o, f]) => max(most, abs(m.finish(o, f) - m.kernel(o, f))), 0);
    return wrong ? `✗ ${grouped(wrong)} of ${grouped(pairs.length)} numbers differ from the kernel's.` : `✓ All ${grouped(pairs.length)} numbers${m.dense ? "" : ` of ${m.pools ? "channel" : "filter"} ${fs[0]}`} are the kernel's to within rounding: the largest difference is ${short(off)}.`;
  }

  // MARK: Choosing
  const words = { naive: "naive: one after another", stride_groups: "stride groups", im2col: "im2col", direct: "direct" };
  const sumsUp = (row) => row.layer.window || !["flatten", "activation", "dropout", "batchnorm", "layernorm", "residual"].includes(nameOf(row));
  // Other kernels than the first first cut a convolution with dilation or groups into plain ones.
  function offered(row) {
    if (!row.layer.window) return ["naive"];
    const { text, parameters, shape, window: [fh, fw], dilation: [dh, dw] } = row.layer;
    // Means of more than 256 numbers are taken by the plain loops instead.
    if (!text.startsWith("conv")) return text.startsWith("max") || fh * fw <= 256 ? ["naive", "stride_groups", "direct"] : ["naive", "direct"];
    return dh * dw > 1 || (parameters / shape[2] - 1) / fh / fw < all()[row.index].layer.shape[2] ? ["naive"] : Object.keys(words);
  }
  function about(m, order, isOne) {
    const [high, lanes] = tile(), tiles = `up to ${high} outputs by ${2 * lanes} filters`, only = isOne && m.F > 1 ? ` Of ${m.F} ${m.pools ? "channels" : "filters"} one is shown.` : "";
    if (m.dense) return `Each output is the sum of all ${grouped(m.size)} numbers times its weights. The kernel adds ${lanes} products at a time, to ${lanes} sums side by side, and these at the end: the same to within rounding.`;
    if (m.pools) return { naive: `Window by window: the ${m.largest ? "first largest number" : "mean"} goes on.`, stride_groups: "One number of all windows at once goes into the outputs, then the next one.", direct: `Window by window, ${lanes} channels at once, a vector of them.` }[order] + only;
    return { naive: "The definition: one output after another, in its window row by row, column by column, channel by channel. What lies outside the image is left out.", stride_groups: `Windows that don't overlap are gathered as rows of a matrix${m.fw * m.C >= 16 && !m.top && !m.left ? " (here straight into the order in which they are read)" : ""} and multiplied together, then the next group. The product runs in tiles of ${tiles}.`, im2col: `Every window becomes a row of one matrix, which is multiplied by the weights in tiles of ${tiles}.`, direct: `Nothing is copied but zeros around the image, if there are any: ${tiles} are summed at once, straight from the input. Rows of the window that meet only zeros around it are left out.` }[order]
      + only + (offered(row).length > 1 ? " Winograd's products, of transformed numbers, aren't shown." : " Other kernels first cut a layer with dilation or groups into plain ones, which isn't shown.");
  }
  function choose(value, order = $("play-order").value) {
    row = rows[parseInt(value)];
    model = null;
    [at, stale] = [0, true];
    const isSum = !value.endsWith("s") && sumsUp(row), [h, w, F] = row.layer.shape, one = h * w > 1 || row.layer.parameters > 2e6;
    $("play-layer").value = value;
    $("play-order").replaceChildren(...(isSum ? offered(row) : ["naive"]).map((o) => make("option", { value: o, selected: o === order }, words[o])));
    $("play-order").parentElement.hidden = $("play-order").length < 2;
    filter.replaceChildren(make("option", { value: "all", disabled: row.layer.parameters > 2e6 }, "all, in turn"), ...list(F).map((f) => make("option", { value: f, selected: one && !f }, f)));
    filter.parentElement.hidden = !isSum;
  }
  async function prepare(place) {
    if (!row || !seen || isLeaving) return;
    const asked = seen, order = $("play-order").value, mine = ++turn, F = row.layer.shape[2];
    if (order !== "naive" && filter.value === "all") filter.value = 0;
    const isAll = filter.value === "all", f = +filter.value || 0;
    let next;
    if (filter.parentElement.hidden) next = $("play-layer").value.endsWith("s") ? softmax(row) : single(row);
    else {
      const panel = order === "direct" ? 2 * tile()[1] : 1, first = isAll ? 0 : floor(f / panel) * panel, answer = await ask("weights", { layer: row.index + 1, first, count: isAll ? F : min(panel, F - first) });
      if (seen !== asked || turn !== mine) return;
      // Of other weights than what is seen: while it learns, this waits.
      if (answer.weights !== seen.weights) {
        model = null;
        stage.replaceChildren();
        for (const id of ["now", "end", "count"]) $(`play-${id}`).textContent = "";
        $("play-about").textContent = "The network is learning. What it computes is shown here when it stops.";
        return;
      }
      const m = windows(row, { ...answer, values: floats(answer.values) }, first);
      next = orders[order](m, isAll ? list(F) : [f]);
      next.draw = () => drawSums(m, next, f);
      next.about = about(m, order, !isAll);
    }
    next.total = 0;
    next.starts = next.lengths.map((length) => (next.total += length) - length);
    at = place && next.find ? next.find(place.o, place.f) : model && model.total !== next.total ? 0 : min(at, next.total);
    model = next;
    stale = false;
    $("play-about").textContent = next.about;
    $("play-at").max = next.total;
    show();
  }
  // Which part step t is in, and how far: a part's last step still belongs to it.
  function inside(t) {
    let [low, high] = [0, model.starts.length - 1];
    while (low < high) {
      const middle = ceil((low + high) / 2);
      if (model.starts[middle] < t) low = middle;
      else high = middle - 1;
    }
    return [low, t - model.starts[low]];
  }
  function show() {
    const [now, end] = model.draw(...inside(at)), count = `step ${grouped(at)} of ${grouped(model.total)}`;
    $("play-now").textContent = now;
    $("play-end").textContent = end;
    $("play-end").style.color = `var(--${end.startsWith("✗") ? "bad" : end.startsWith("✓") ? "good" : "ink"})`;
    $("play-at").value = at;
    $("play-at").setAttribute("aria-valuetext", ($("play-count").textContent = count));
    $("play-back").disabled = $("play-start").disabled = at === 0;
    $("play-next").disabled = $("play-end-button").disabled = at === model.total;
  }

  // MARK: Moving: by a step, or to the end of an output or of a part
  function after(t, by) {
    const [i, u] = inside(t + 1), end = model.starts[i] + model.lengths[i];
    if (by !== "output") return min(model.total, by === "row" ? end : t + 1);
    return min(end, model.starts[i] + (model.jump ? model.jump(i, u - 1) || u : ceil(u / model.unit) * model.unit));
  }
  function before(t, by) {
    if (+by) return max(0, t - 1);
    let found = model.starts[inside(t)[0]];
    if (by === "output") for (let next = found; (next = after(next, by)) < t; ) found = next;
    return found;
  }
  function pause() {
    cancelAnimationFrame(frame);
    frame = 0;
    $("play-go").textContent = "Play";
    $("play-now").setAttribute("aria-live", "polite");
  }
  function seek(t) {
    if (!model) return;
    pause();
    at = max(0, min(model.total, t));
    show();
  }
  const step = (by = 1) => { if (model) seek((by < 0 ? before : after)(at, speed.value)); };
  function go() {
    if (frame) { pause(); return; }
    if (!model || still.matches) return;
    if (at === model.total) at = 0;
    $("play-go").textContent = "Pause";
    // Read aloud it would be of what is long past.
    $("play-now").setAttribute("aria-live", "off");
    let last = performance.now(), owed = 0;
    const tick = (now) => {
      if (!model) { pause(); return; }
      owed += ((now - last) / 1000) * (+speed.value || 5);
      last = now;
      if (owed >= 1) {
        at = +speed.value ? min(model.total, at + floor(owed)) : after(at, speed.value);
        owed %= 1;
        show();
      }
      if (at < model.total) frame = requestAnimationFrame(tick);
      else pause();
    };
    frame = requestAnimationFrame(tick);
  }
  const again = () => { pause(); tell(prepare()); }, settle = () => { $("play-go").hidden = still.matches; pause(); }, refresh = () => { if (model && seen) show(); };

  for (const [id, act] of [["go", go], ["next", () => step()], ["back", () => step(-1)], ["start", () => seek(0)], ["end-button", () => seek(Infinity)]]) $(`play-${id}`).addEventListener("click", act);
  $("play-layer").addEventListener("change", () => { choose($("play-layer").value); again(); });
  for (const id of ["play-order", "play-filter"]) $(id).addEventListener("change", () => { model = null; at = 0; again(); });
  $("play-at").addEventListener("input", () => seek(+$("play-at").value));
  still.addEventListener("change", settle);
  settle();
  redraws.add(refresh);
  addEventListener("resize", refresh);
  // What nobody sees isn't asked for.
  new IntersectionObserver(([entry]) => { inSight = entry.isIntersecting; if (inSight && stale) tell(prepare()); }).observe($("play"));
  const renew = () => { if (stale && inSight) tell(prepare()); };
  views.push({
    built() {
      pause();
      $("play-layer").replaceChildren(...rows.flatMap((r) => [!isSoftmax(r) || sumsUp(r) ? make("option", { value: r.index }, `${r.index + 1}  ${r.layer.text}`) : null, isSoftmax(r) ? make("option", { value: `${r.index}s` }, `${r.index + 1}  softmax: from sums to shares`) : null]).filter(Boolean));
      choose($("play-layer").value);
    },
    looked() {
      $("play").hidden = false;
      stale = true;
      renew();
    },
    trained(now) { if (!now.is_running) renew(); },
    blank() { pause(); model = null; stale = true; $("play").hidden = true; },
  });
  return {
    step, go, pause, seek,
    get at() { return at; },
    get total() { return model?.total ?? 0; },
    // A layer by its row's index, in an order ("softmax": what makes shares of its sums), from one output on.
    async show(index, order, place) {
      if (!seen) throw refusal("Draw something first, or take a test digit.");
      pause();
      choose(`${index}${isSoftmax(rows[index]) && (order === "softmax" || !sumsUp(rows[index])) ? "s" : ""}`, order ?? undefined);
      if (place && !filter.parentElement.hidden) filter.value = place.c;
      $("play").scrollIntoView({ behavior: still.matches ? "auto" : "smooth" });
      await prepare(place && { o: place.y * row.layer.shape[1] + place.x, f: place.c });
    },
  };
})();
