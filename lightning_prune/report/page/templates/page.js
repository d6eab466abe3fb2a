"use strict";
(function () {
  const byId = (id) => document.getElementById(id);
  const read = (id) => { const e = byId(id); return e ? JSON.parse(e.textContent) : null; };
  const NS = "http://www.w3.org/2000/svg";
  const make = (name, attributes, text) => {
    const e = document.createElementNS(NS, name);
    for (const key in attributes) e.setAttribute(key, attributes[key]);
    if (text !== undefined) e.textContent = text;
    return e;
  };
  const html = (name, className, text) => {
    const e = document.createElement(name);
    if (className) e.className = className;
    if (text !== undefined) e.textContent = text;
    return e;
  };
  document.querySelectorAll("[data-script]").forEach((e) => { e.hidden = false; });

  // Theme: what the system says, until somebody chooses.
  const root = document.documentElement, theme = byId("theme");
  const kept = (() => { try { return localStorage.getItem("theme"); } catch (_) { return null; } })();
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; theme.setAttribute("aria-label", isDark() ? "Light colours" : "Dark colours"); };
  theme.hidden = false; name();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark"; name();
    try { localStorage.setItem("theme", root.dataset.theme); } catch (_) { /* a page from disk may not store */ }
  });

  // One ramp for every heat map, readable on light and dark.
  const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const ramp = (t) => {
    const p = Math.min(Math.max(t, 0), 1) * (STOPS.length - 1), i = Math.min(Math.floor(p), STOPS.length - 2), f = p - i;
    return "rgb(" + STOPS[i].map((v, c) => Math.round(v + f * (STOPS[i + 1][c] - v))).join(",") + ")";
  };
  const strip = byId("ramp");
  if (strip) { const c = strip.getContext("2d"); for (let x = 0; x < 64; x++) { c.fillStyle = ramp(x / 63); c.fillRect(x, 0, 1, 1); } }

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const bits = (text, count) => { const b = bytes(text), out = []; for (let i = 0; i < count; i++) if (b[i >> 3] & (128 >> (i & 7))) out.push(i); return out; };
  const owners = (text, kept) => { const b = bytes(text); return kept.length <= 256 ? Array.from(b, (n) => kept[n]) : Array.from({ length: b.length / 2 }, (_, i) => kept[b[2 * i] + 256 * b[2 * i + 1]]); };
  const figure = (title, svg, note, isWide) => {
    const f = html("figure", isWide ? "wide" : "");
    f.append(html("h3", "", title), svg);
    if (note) f.append(html("figcaption", "keys", note));
    return f;
  };
  const canvas = (w, h, label) => make("svg", { viewBox: "0 0 " + w + " " + h, role: "img", "aria-label": label });
  const number = (v) => v === 0 ? "0" : Math.abs(v) >= 0.01 ? v.toFixed(2) : v.toExponential(1);

  const curve = (points, marks, title, xLabel, logarithmic) => {
    const W = 340, H = 170, L = 46, B = 28, xs = points.map((p) => p[0]);
    const ys = points.map((p) => logarithmic ? Math.log10(Math.max(p[1], 1e-9)) : p[1]);
    const x0 = Math.min(...xs), x1 = Math.max(...xs), y0 = Math.min(...ys), y1 = Math.max(...ys);
    const X = (v) => L + (W - L - 8) * (v - x0) / (x1 - x0 || 1), Y = (v) => H - B - (H - B - 8) * (v - y0) / (y1 - y0 || 1);
    const svg = canvas(W, H, title);
    [y0, y1].forEach((v) => {
      svg.append(make("path", { class: "grid", d: "M" + L + " " + Y(v) + "H" + (W - 8) }));
      svg.append(make("text", { x: L - 6, y: Y(v) + 4, "text-anchor": "end" }, number(logarithmic ? Math.pow(10, v) : v)));
    });
    [x0, x1].forEach((v) => svg.append(make("text", { x: X(v), y: H - 10, "text-anchor": v === x0 ? "start" : "end" }, String(v))));
    svg.append(make("text", { x: (W + L) / 2, y: H - 10, "text-anchor": "middle" }, xLabel));
    marks.forEach((m) => { if (m[1] >= x0 && m[1] <= x1) svg.append(make("path", { class: m[0], d: "M" + X(m[1]) + " 8V" + (H - B) })); });
    svg.append(make("path", { class: "curve", d: points.map((p, i) => (i ? "L" : "M") + X(p[0]).toFixed(1) + " " + Y(ys[i]).toFixed(1)).join("") }));
    return svg;
  };
  const embedding = (layer, keep) => {
    const points = bytes(layer.points), owner = owners(layer.owner, Array.from(keep)), W = 340, H = 240;
    const X = (i) => 10 + (W - 20) * points[2 * i] / 255, Y = (i) => 10 + (H - 20) * points[2 * i + 1] / 255;
    const svg = canvas(W, H, layer.channels + " channels placed by what they separate, " + keep.size + " stay");
    const size = Math.max(2, Math.min(5, 60 / Math.sqrt(layer.channels)));
    let ties = "";
    owner.forEach((o, i) => { if (o !== i) ties += "M" + X(i).toFixed(1) + " " + Y(i).toFixed(1) + "L" + X(o).toFixed(1) + " " + Y(o).toFixed(1); });
    svg.append(make("path", { class: "tie", d: ties || "M0 0" }));
    [false, true].forEach((stays) => {
      for (let i = 0; i < layer.channels; i++) {
        if (keep.has(i) !== stays) continue;
        const c = make("circle", { class: stays ? "kept" : "gone", cx: X(i).toFixed(1), cy: Y(i).toFixed(1), r: stays ? size : size * 0.7 });
        c.append(make("title", {}, "channel " + i + (stays ? ", stays" : ", represented by " + owner[i])));
        svg.append(c);
      }
    });
    return svg;
  };
  const norms = (layer, keep) => {
    const values = bytes(layer.norms), order = Array.from(values.keys()).sort((a, b) => values[b] - values[a]);
    const W = 340, H = 120, step = W / order.length, paths = { kept: "", gone: "" };
    order.forEach((c, i) => { paths[keep.has(c) ? "kept" : "gone"] += "M" + ((i + 0.5) * step).toFixed(2) + " " + H + "V" + (H - Math.max(1, (H - 6) * values[c] / 255)).toFixed(1); });
    const svg = canvas(W, H, "Norms of " + order.length + " channels, the largest first");
    for (const kind in paths) if (paths[kind]) svg.append(make("path", { class: "norm-" + kind, d: paths[kind], "stroke-width": Math.max(step * 0.8, 0.4) }));
    return svg;
  };
  const short = (text, most) => text.length > most ? text.slice(0, most - 1) + "\u2026" : text;
  const heat = (rows, columns, value, rowNames, columnNames, label, marked) => {
    const longest = (names) => Math.min(12, Math.max(...names.map((n) => n.length))), cell = 16, L = 14 + 6.2 * longest(rowNames), T = 14 + 5.6 * longest(columnNames), width = L + columns * cell + 4, svg = canvas(width, T + rows * cell + 4, label);
    svg.style.maxWidth = 1.6 * width + "px";  // maps beside one another have letters of one size
    for (let r = 0; r < rows; r++) {
      const t = make("text", { x: L - 5, y: T + r * cell + 12, "text-anchor": "end" }, short(rowNames[r], 12));
      if (marked && marked(r)) t.setAttribute("style", "font-weight:700;fill:var(--pruned)");
      svg.append(t);
      for (let k = 0; k < columns; k++) {
        const v = value(r, k);
        if (v === null) continue;
        const e = make("rect", { x: L + k * cell, y: T + r * cell, width: cell - 0.5, height: cell - 0.5, fill: ramp(v / data.largest) });
        e.append(make("title", {}, rowNames[r] + ", " + columnNames[k] + ": " + (v * 2 / 255).toFixed(3)));
        svg.append(e);
      }
    }
    for (let k = 0; k < columns; k++) svg.append(make("text", { transform: "translate(" + (L + k * cell + 11) + " " + (T - 5) + ") rotate(-60)" }, short(columnNames[k], 12)));
    return svg;
  };
  const pairIndex = (K) => { const at = {}; let n = 0; for (let a = 0; a < K; a++) for (let b = a + 1; b < K; b++) at[a + "," + b] = at[b + "," + a] = n++; return at; };

  const data = read("page-data") || { layers: {} };
  const draw = (details) => {
    const layer = (data.layers || {})[details.dataset.group], place = details.querySelector(".drawn");
    if (!layer || !place || place.childNodes.length) return;
    const keep = new Set(bits(layer.keep, layer.channels)), classes = data.classes[layer.classes] || [];
    if (layer.mss) place.append(figure("Mean simplified silhouette", curve(layer.mss, [["knee", layer.knee], ["chosen", keep.size]].filter((m) => m[1] !== null), "Mean simplified silhouette over the number of clusters", "number of clusters"), "solid: " + keep.size + " chosen" + (layer.knee === null ? "" : "; dashed: knee " + layer.knee)));
    if (layer.points) place.append(figure("Channels by what they separate", embedding(layer, keep), (layer.method === "tsne" ? "t-SNE" : layer.method === "pca" ? "PCA" : "first two columns") + "; a line leads to the channel that stays for a cluster"));
    if (layer.losses && layer.losses.length > 1) place.append(figure("Loss that consumers cannot repair", curve(layer.losses, [["chosen", keep.size]], "Loss over the width", "channels that stay", true), "on a logarithmic scale; solid: " + keep.size + " chosen"));
    if (layer.norms) place.append(figure("Filter norms, largest first", norms(layer, keep), "l1, at most " + layer.largest.toPrecision(3)));
    if (layer.pairs && classes.length > 1) {
      const K = classes.length, pairs = bytes(layer.pairs), at = pairIndex(K);
      place.append(figure("Separability of pairs of classes, mean over channels", heat(K, K, (a, b) => a === b ? null : pairs[at[a + "," + b]], classes, classes, "Mean separability of each pair of " + K + " classes"), "", K > 12));
      if (layer.rows) {
        const rows = bytes(layer.rows), names = layer.strongest.map((c) => "channel " + c);
        place.append(figure("Separability of the strongest channels", heat(names.length, K, (r, k) => rows[r * K + k], names, classes, "Mean separability of each class from all others, channel by channel", (r) => keep.has(layer.strongest[r])), "each class against all others; bold channels stay", K > 12));
      }
    }
  };
  document.querySelectorAll("details[data-group]").forEach((d) => d.addEventListener("toggle", () => { if (d.open) draw(d); }));
  const find = byId("find");
  if (find) find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    document.querySelectorAll(".layers > li").forEach((li) => { li.hidden = wanted !== "" && !li.querySelector(".name").textContent.toLowerCase().includes(wanted); });
  });

  const usage = byId("usage"), report = read("pruning-report");
  if (usage && report && report.usage) {
    const layers = Object.values(report.usage.layers), epochs = report.usage.epochs.length;
    let most = 0.05;
    layers.forEach((l) => l.channels.forEach((c, e) => { most = Math.max(most, (c - l.used[e]) / Math.max(c, 1)); }));
    usage.width = epochs; usage.height = layers.length; usage.style.height = Math.max(60, 8 * layers.length) + "px";
    const c = usage.getContext("2d");
    layers.forEach((l, y) => l.channels.forEach((n, x) => { c.fillStyle = ramp(1 - (n - l.used[x]) / Math.max(n, 1) / most); c.fillRect(x, y, 1, 1); }));
    byId("usage-most").textContent = "yellow none, violet " + (100 * most).toFixed(0) + "% of a layer's channels";
  }

  // Tables that sort by a click, or Enter, on their headings.
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = Array.from(table.tHead.rows[0].cells), body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = html("button", "", head.textContent);
      button.type = "button"; head.textContent = ""; head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((h) => h.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
        const order = (a, b) => {
          const x = key(a), y = key(b), m = parseFloat(x), n = parseFloat(y);
          if (x === "" || x === "-") return y === "" || y === "-" ? 0 : 1;
          if (y === "" || y === "-") return -1;
          const by = Number.isFinite(m) && Number.isFinite(n) ? m - n : x.localeCompare(y);
          return up ? by : -by;
        };
        Array.from(body.rows).sort(order).forEach((row) => body.append(row));
      });
    });
  });
})();
