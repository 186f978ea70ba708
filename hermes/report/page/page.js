(() => {
"use strict";
const root = document.documentElement, $ = (s, of = document) => [...of.querySelectorAll(s)];
root.classList.add("js");
const run = document.body.dataset.run, kept = {
  get(key) { try { return sessionStorage.getItem(`hermes:${run}:${key}`); } catch { return null; } },
  set(key, value) { try { sessionStorage.setItem(`hermes:${run}:${key}`, value); } catch { /* not here */ } },
};
const data = JSON.parse(document.getElementById("numbers").textContent);

// The theme: the system's, until somebody chooses.
const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme:dark)").matches ? "dark" : "light")) === "dark";
const theme = document.getElementById("theme");
const name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
if (kept.get("theme")) root.dataset.theme = kept.get("theme");
theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; kept.set("theme", root.dataset.theme); name(); });
name();

// Which axis, which workers, which details.
for (const radio of $(".axes input")) {
  if (kept.get("x") === radio.id) radio.checked = true;
  radio.addEventListener("change", () => kept.set("x", radio.id));
}
const hidden = new Set(JSON.parse(kept.get("hidden") || "[]"));
const show = () => {
  for (const part of $("figure [data-worker]")) part.classList.toggle("off", part.matches(".curve,.dot") && hidden.has(part.dataset.worker));
  for (const part of $("figure [data-plain]")) part.setAttribute("aria-pressed", !hidden.has(part.dataset.plain));
  for (const part of $("figure .curve:not([data-worker])")) part.classList.toggle("off", hidden.has(part.dataset.series));
  kept.set("hidden", JSON.stringify([...hidden]));
};
for (const button of $("[data-plain]")) button.addEventListener("click", () => {
  const who = button.dataset.plain;
  if (!hidden.delete(who)) hidden.add(who);
  show();
});
show();
const details = $("details");
const open = new Set(JSON.parse(kept.get("open") || "[]"));
details.forEach((one, index) => {
  if (open.has(index)) one.open = true;
  one.addEventListener("toggle", () => kept.set("open", JSON.stringify(details.flatMap((d, i) => d.open ? [i] : []))));
});
let closed = [];
addEventListener("beforeprint", () => { closed = details.filter(d => !d.open && !d.matches(".long")); closed.forEach(d => { d.open = true; }); });
addEventListener("afterprint", () => closed.forEach(d => { d.open = false; }));

// Numbers at the pointer.
const two = n => String(Math.floor(n)).padStart(2, "0");
const time = s => s < 1 ? `${+(s * 1000).toPrecision(3)} ms` : s < 60 ? `${s.toFixed(2)} s` : s < 3600 ? `${Math.floor(s / 60)} min ${two(s % 60)} s` : `${Math.floor(s / 3600)} h ${two(s % 3600 / 60)} min`;
const size = b => { for (const u of ["B", "kB", "MB"]) { if (b < 1000) return `${u === "B" ? b.toFixed(0) : b.toFixed(1)} ${u}`; b /= 1000; } return `${b.toFixed(1)} GB`; };
const says = { time, bytes: size, samples: n => Math.round(n).toLocaleString("en").replaceAll(",", " ") };
const tip = document.createElement("div");
tip.className = "tip"; tip.hidden = true; tip.setAttribute("role", "status");
const nearest = (xs, x, step) => {
  let low = 0, high = xs.length;
  while (low < high) { const mid = low + high >> 1; if (xs[mid] <= x) low = mid + 1; else high = mid; }
  if (step) return low - 1;
  return low && (low === xs.length || x - xs[low - 1] < xs[low] - x) ? low - 1 : low;
};
const lines = (chart, x) => {
  const found = [];
  for (const s of chart.series) {
    const at = hidden.has(s.name) ? -1 : nearest(s.xs, x, s.step);
    if (at >= 0) found.push([s.ys[at], `${s.name}: ${s.texts ? s.texts[at] : chart.said(s.ys[at])}`, s.xs[at]]);
  }
  if (chart.series.length > 1) found.sort((a, b) => b[0] - a[0]);
  return found;
};
const spell = { score: v => v.toFixed(4), rate: v => `${v < 100 ? +v.toPrecision(3) : says.samples(v)} samples/s`, bytes: size, samples: says.samples };
for (const svg of $("figure svg[data-chart]")) {
  const chart = data[svg.dataset.chart];
  if (!chart) continue;
  if (chart.unit) chart.said = spell[chart.unit];
  const [left, top, right, bottom] = svg.dataset.box.split(" ").map(Number);
  const [low, high] = svg.dataset.x.split(" ").map(Number);
  const cursor = svg.querySelector(".cursor"), figure = svg.closest("figure");
  const move = event => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const px = (event.clientX - box.left) * scale, py = (event.clientY - box.top) * scale;
    if (px < left || px > right || py < top || py > bottom) return leave();
    let x = low + (px - left) / (right - left) * (high - low), told, at = px;
    if (chart.lanes) {
      const lane = chart.lanes[Math.min(chart.lanes.length - 1, Math.floor((py - top) / (bottom - top) * chart.lanes.length))];
      const row = lane.rows.find(r => r[0] <= x && x <= r[1]);
      told = [`${lane.name} at ${time(x)}`];
      if (row) {
        told.push(`${row[5]} ${row[5] === 1 ? "round" : "rounds"}, ${time(row[0])} to ${time(row[1])}`, `training ${time(row[2])}, transfer ${time(row[3])}, waiting ${time(row[4])}`);
        told.push(["push", "quiet", "veto"].map((kind, i) => [row[6 + i], kind]).filter(([n]) => n).map(([n, kind]) => `${n} × ${kind}`).join(", "));
      }
    } else {
      const found = lines(chart, x);
      if (!found.length) return leave();
      if (chart.series.length === 1) { x = found[0][2]; at = left + (x - low) / (high - low) * (right - left); }
      told = [says[svg.dataset.unit](x), ...found.map(([, text]) => text)];
    }
    cursor.setAttribute("x1", at); cursor.setAttribute("x2", at); cursor.style.display = "inline";
    if (tip.parentNode !== figure) figure.append(tip);
    tip.textContent = told.filter(Boolean).join("\n"); tip.hidden = false;
    const frame = figure.getBoundingClientRect(), spot = at / scale + box.left - frame.left;
    const wide = tip.offsetWidth, room = frame.width - wide;
    tip.style.left = `${Math.max(0, Math.min(room, spot + 14 + wide > frame.width ? spot - wide - 14 : spot + 14))}px`;
    tip.style.top = `${Math.max(0, event.clientY - frame.top + (chart.lanes ? 22 : -tip.offsetHeight / 2))}px`;
  };
  const leave = () => { cursor.style.display = "none"; if (tip.parentNode === figure) tip.hidden = true; };
  svg.addEventListener("pointermove", move); svg.addEventListener("pointerdown", move); svg.addEventListener("pointerleave", event => { if (event.pointerType !== "touch") leave(); });
  addEventListener("pointerdown", event => { if (!svg.contains(event.target)) leave(); }, { capture: true });
}

// Tables: sorted by a column, filtered by a text.
const units = { ms: 1e-3, s: 1, min: 60, h: 3600, B: 1, kB: 1e3, MB: 1e6, GB: 1e9 };
const worth = text => {
  const found = [...text.replace(/(\d)[ \u00a0](?=\d{3})/g, "$1").matchAll(/(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?) ?(kB|MB|GB|B|ms|min|s|h)?(?![\w.])/g)];
  return found.length && /^[-\d]/.test(text) ? found.reduce((sum, [, n, unit]) => sum + n * (units[unit] || 1), 0) : null;
};
for (const table of $("table.sortable")) {
  const body = table.tBodies[0], heads = $("th", table);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent; head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const keyed = [...body.rows].map(row => { const text = row.cells[column].textContent; return [worth(text), text, row]; });
      keyed.sort(([a, s], [b, t]) => (a !== null && b !== null ? a - b : a !== null ? -1 : b !== null ? 1 : s.localeCompare(t)) * (up ? 1 : -1));
      body.append(...keyed.map(([, , row]) => row));
    });
  });
}
for (const search of $("input[type=search]")) {
  const rows = [...document.getElementById(search.dataset.table).tBodies[0].rows];
  const texts = rows.map(row => row.textContent.toLowerCase()), shown = document.getElementById(search.dataset.count);
  const filter = () => {
    const wanted = search.value.trim().toLowerCase().split(/\s+/);
    let count = 0;
    rows.forEach((row, i) => { const on = wanted.every(word => texts[i].includes(word)); row.hidden = !on; count += on; });
    shown.textContent = `${count} of ${rows.length} rows`;
    kept.set(search.id, search.value);
  };
  search.value = kept.get(search.id) || "";
  search.addEventListener("input", filter); filter();
}

// A run that goes on: the page comes anew, where the reader is not busy with it.
const every = Number(document.body.dataset.reload || 0) * 1000;
if (every) {
  const place = kept.get("scroll");
  if (place) scrollTo(0, Number(place));
  let busy = 0;
  for (const kind of ["pointermove", "pointerdown", "keydown", "wheel", "touchmove"]) addEventListener(kind, () => { busy = Date.now(); }, { passive: true });
  const follow = document.getElementById("follow");
  follow.checked = kept.get("follow") !== "no";
  follow.addEventListener("change", () => kept.set("follow", follow.checked ? "yes" : "no"));
  const since = document.getElementById("since");
  setInterval(() => {
    const age = (Date.now() - Date.parse(document.body.dataset.written)) / 1000;
    if (age > 60) since.textContent = `Written ${time(age)} ago: does its master live?`;
    if (!follow.checked || document.hidden || Date.now() - busy < 4000 || performance.now() < every) return;
    kept.set("scroll", scrollY); location.reload();
  }, 1000);
}
})();
