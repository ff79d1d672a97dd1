// SPDX-License-Identifier: MIT
// The network as cards with shapes and parameter counts, and the lesson as a link: the network, the
// seed and the settings stand in the page's address.
const builder = (() => {
  // What a card offers of a layer; all else stands in its text, which can be edited too.
  const kinds = {
    conv: ["conv(8,3)", ["filters", "size", "stride", "padding", "activation"]], maxpool: ["maxpool(2)", ["size", "stride"]], avgpool: ["avgpool(2)", ["size", "stride"]], globalavgpool: ["globalavgpool", []],
    flatten: ["flatten", []], relu: ["relu(32)", ["outputs"]], softmax: ["softmax(10)", ["outputs"]], dense: ["dense(10)", ["outputs", "activation"]], batchnorm: ["batchnorm", ["activation"]], layernorm: ["layernorm", []],
    dropout: ["dropout(0.3)", ["rate"]], activation: ["activation(relu)", ["activation"]], residual: ["residual(conv(8,3,padding=same))", []],
  };
  const usual = { conv: { stride: "1", padding: "valid", activation: "relu" }, dense: { activation: "none" }, batchnorm: { activation: "none" } };
  // The settings of a training and what a link says of them.
  const fields = { seed: "seed", optimizer: "optimizer", rate: "rate", batch: "batch", epochs: "epochs", augment: "augment" };
  let list = [], first = null, latest = 0, timer = null;

  // A network's layers: what lies between blanks that aren't inside brackets.
  function split(text) {
    const parts = [];
    let depth = 0, isOpen = false;
    for (const c of text.trim()) {
      if (/\s/.test(c) && depth === 0) { isOpen = false; continue; }
      // A blank before a bracket belongs to the layer.
      if (!isOpen && c !== "(") parts.push("");
      isOpen = true;
      if (!parts.length) parts.push("");
      parts[parts.length - 1] += c;
      depth += c === "(" ? 1 : c === ")" ? -1 : 0;
    }
    return parts;
  }
  // "conv(16,3,padding=same)": its name, and its arguments by their names.
  function read(text) {
    const [, name, inside] = text.match(/^([^(]*)(?:\((.*)\))?$/s) ?? [null, text], names = kinds[name]?.[1] ?? [], given = {};
    if (name !== "residual" && inside) inside.split(",").forEach((part, i) => {
      const [key, value] = part.includes("=") ? part.split("=") : [names[i] ?? `${i}`, part];
      given[key.trim()] = value.trim();
    });
    return { name: name.trim(), given };
  }
  function write(name, given, names) {
    const parts = [];
    let isInOrder = true;
    for (const [i, key] of names.entries()) {
      if (!given[key]) isInOrder = false;
      else parts.push(isInOrder && i < 2 ? given[key] : `${key}=${given[key]}`);
    }
    for (const [key, value] of Object.entries(given)) if (!names.includes(key) && value) parts.push(`${key}=${value}`);
    return parts.length ? `${name}(${parts.join(",")})` : name;
  }

  // MARK: Cards
  function card(text, i) {
    const { name, given } = read(text), names = kinds[name]?.[1] ?? [], place = `layer ${i + 1}, ${name}`;
    const all = make("input", { class: "mono", value: text, spellcheck: "false", autocomplete: "off", "aria-label": `${place}: as text`, onchange: () => change(i, all.value.trim()) });
    const inputs = names.map((key) => make("label", {}, key, make("input", { value: given[key] ?? "", placeholder: usual[name]?.[key], "aria-label": `${place}: ${key}`, oninput: ({ target }) => {
      const now = read(list[i]).given;
      now[key] = target.value.trim();
      list[i] = all.value = write(name, now, names);
      changed();
    } })));
    const button = (label, what, action, disabled) => make("button", { "aria-label": `${what} ${place}`, title: what, disabled, onclick: action }, label);
    const grip = make("span", { class: "grip", "aria-hidden": "true", title: "Drag" }, "⠿");
    const item = make("li", { class: "card" }, make("div", { class: "row" }, grip, make("b", { class: "mono" }, `${i + 1} ${name}`), button("↑", "Earlier:", () => move(i, i - 1), i === 0), button("↓", "Later:", () => move(i, i + 1), i === list.length - 1), button("✕", "Remove", () => { list.splice(i, 1); render(Math.min(i, list.length - 1)); })), make("div", { class: "fields" }, ...inputs, make("label", {}, "as text", all)), make("p", { class: "soft made" }), make("p", { class: "wrong", role: "alert" }));
    grip.addEventListener("pointerdown", (event) => drag(event, i, item));
    return item;
  }
  // A card follows the pointer from place to place.
  function drag(event, from, item) {
    event.preventDefault();
    let at = from;
    item.classList.add("dragged");
    const over = ({ clientX, clientY }) => {
      const other = document.elementFromPoint(clientX, clientY)?.closest("#cards .card"), places = [...$("cards").children].filter((c) => c.matches(".card"));
      const to = places.indexOf(other);
      if (to < 0 || other === item) return;
      other[to > places.indexOf(item) ? "after" : "before"](item);
      at = [...$("cards").children].filter((c) => c.matches(".card")).indexOf(item);
    };
    const end = () => {
      removeEventListener("pointermove", over);
      for (const name of ["pointerup", "pointercancel"]) removeEventListener(name, end);
      item.classList.remove("dragged");
      if (at !== from) move(from, at);
    };
    addEventListener("pointermove", over);
    for (const name of ["pointerup", "pointercancel"]) addEventListener(name, end);
  }
  function move(from, to) {
    list.splice(to, 0, ...list.splice(from, 1));
    render(to);
  }
  function change(i, text) {
    list.splice(i, 1, ...split(text));
    render(i);
  }
  function render(focus) {
    $("cards").replaceChildren(make("li", { class: "input soft" }, `input ${machine.input.join(" × ")}`), ...list.map(card));
    if (focus != null) $("cards").querySelectorAll(".card")[focus]?.querySelector("input")?.focus();
    changed();
  }
  function changed() {
    $("text").value = list.join(" ");
    check();
  }

  // MARK: Shapes, counts and errors, by whoever trains it
  function check() {
    clearTimeout(timer);
    timer = setTimeout(() => tell(plan()), 120);
    note();
  }
  async function plan() {
    const number = ++latest, text = $("text").value;
    let { layers, error } = await ask("plan", { layers: text });
    // What is no layer is said at its card, if it is one's; the layers before it are all right.
    if (error && error.index == null && text === list.join(" "))
      for (const [i, own] of list.entries()) {
        const alone = await ask("plan", { layers: own });
        if (!alone.error || alone.error.index != null) continue;
        if (i) ({ layers } = await ask("plan", { layers: list.slice(0, i).join(" ") }));
        error = { index: i, message: alone.error.message };
        break;
      }
    if (number !== latest) return;
    const isParsed = !error || error.index != null;
    if (isParsed && text !== list.join(" ")) {
      list = split(text);
      return render();
    }
    $("text-wrong").textContent = error && !isParsed ? error.message : "";
    [...$("cards").querySelectorAll(".card")].forEach((item, i) => {
      const made = layers[i], isWrong = error?.index === i;
      item.querySelector(".made").textContent = made ? `→ ${made.shape.slice(0, 2).some((n) => n > 1) ? made.shape.join(" × ") : made.shape[2]}${made.parameters ? `, ${grouped(made.parameters)} parameters` : ""}` : "";
      item.querySelector(".wrong").textContent = isWrong ? error.message : "";
      item.classList.toggle("refused", isWrong);
    });
    $("total").textContent = error ? "This network can't be trained yet." : `${grouped(layers.reduce((sum, { parameters }) => sum + parameters, 0))} parameters in ${layers.length} layers.`;
    $("train").disabled = Boolean(error) || polling;
  }

  // MARK: The link
  const settings = () => ({ layers: $("text").value, ...Object.fromEntries(Object.entries(fields).map(([key, id]) => [key, $(id).value])), kernels: $("kernels").value, ...(source && source.test != null ? { digit: String(source.test) } : {}) });
  function note() {
    if (!first) return;
    const now = settings(), different = Object.entries(now).filter(([key, value]) => value !== first[key]);
    const address = location.href.split("#")[0] + (different.length ? `#${new URLSearchParams(different)}` : "");
    // Browsers bear some changes a second.
    if (address !== location.href) history.replaceState(null, "", address);
    $("new-network").hidden = now.layers === machine.network;
  }
  // Takes over what is right, and says what isn't.
  async function apply(object) {
    const wrong = [], number = (key, least, whole = true) => {
      const value = +object[key];
      if (object[key].trim() !== "" && value >= least && (!whole || Number.isInteger(value)) && value < 1e9) return $(fields[key]).value = object[key];
      wrong.push(`${key} '${object[key]}': expected a ${whole ? "whole " : ""}number from ${least} on`);
    };
    const among = (key, id, list) => {
      if (list.includes(object[key])) $(id).value = object[key];
      else wrong.push(`${key} '${object[key]}': expected one of ${list.join(", ")}`);
    };
    for (const key of Object.keys(object)) {
      if (key === "layers") {
        const { error } = await ask("plan", { layers: object.layers });
        if (error) wrong.push(`layers: ${error.message}`);
        else set(object.layers);
      } else if (key === "optimizer") among(key, "optimizer", [...$("optimizer").options].map((o) => o.value));
      else if (key === "kernels") {
        among(key, "kernels", machine.kernels);
        if (kernels !== $("kernels").value) $("kernels").dispatchEvent(new Event("change"));
      } else if (key === "augment") $("augment").value = object.augment;
      else if (key === "rate") number(key, 1e-9, false);
      else if (key === "seed") number(key, 0);
      else if (key === "batch" || key === "epochs") number(key, 1);
      else if (key === "digit") {
        if (/^\d+$/.test(object.digit) && +object.digit < machine.test_images) {
          $("number").value = object.digit;
          await load({ test: +object.digit });
        } else wrong.push(`digit '${object.digit}': expected a number below ${machine.test_images}`);
      } else wrong.push(`${key}: not a setting of this page`);
    }
    $("link-note").textContent = wrong.length ? `${wrong.length} of the link's settings can't be used: ${wrong.join("; ")}.` : "";
    note();
  }
  const fromAddress = () => (location.hash.length > 1 && !location.hash.startsWith("#lesson") ? apply(Object.fromEntries(new URLSearchParams(location.hash.slice(1)))) : null);
  async function copy() {
    note();
    try {
      await navigator.clipboard.writeText(location.href);
      $("copied").textContent = "Copied.";
    } catch {
      // From a file some browsers don't copy.
      const field = make("input", { value: location.href, readonly: true, "aria-label": "The link" });
      $("copied").replaceChildren("Copy it from here: ", field);
      field.select();
    }
  }

  function set(text) {
    list = split(text);
    render();
  }
  views.push({
    started() {
      $("builder").hidden = false;
      $("add").replaceChildren(...Object.keys(kinds).map((name) => make("option", {}, name)));
      $("add-layer").addEventListener("click", () => {
        // Before the layer that makes the outputs.
        const at = list.length && /^(softmax|dense|sigmoid)\b/.test(list.at(-1)) ? list.length - 1 : list.length;
        list.splice(at, 0, kinds[$("add").value][0]);
        render(at);
      });
      $("text").addEventListener("input", check);
      for (const id of [...Object.values(fields), "kernels"]) $(id).addEventListener("input", note);
      $("copy-link").addEventListener("click", () => tell(copy()));
      $("train-new").addEventListener("click", () => $("train").click());
      addEventListener("hashchange", () => tell(Promise.resolve(fromAddress())));
      set($("text").value);
      first = settings();
      tell(Promise.resolve(fromAddress()));
    },
    built() { if (first) $("new-network").hidden = $("text").value === machine.network; },
    looked() { note(); },
  });
  return { set, settings, apply };
})();
