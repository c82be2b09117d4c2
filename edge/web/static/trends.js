// Trends from the ring: a few tags over minutes or hours, drawn by uPlot. Where the value was bad there is a gap.

import { $, make, put } from "./dom.js";
import { DASH, figure, shortTime, span } from "./format.js";
import { tell } from "./session.js";

const TAGS_MAX = 6;
const POINTS = 300;
const PERIOD_MS_MIN = 5000;
const PERIOD_MS_MAX = 60_000;
const AXES_MAX = 2;
const DASHES = [[], [8, 4], [2, 3], [12, 4, 2, 4], [5, 5], [1, 4]];

let chosen = []; // {tag, unit}
let spanS = 900;
let data = null; // the last answer, kept whole and continued
let chart = null;
let drawn = ""; // what the chart was built for
let asked = 0;
let timer = null;
let busy = false;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colours = () => ["--accent", "--trend-2", "--trend-3", "--trend-4", "--trend-5", "--trend-6"].map(css);

// Puts newer points behind (and over the last of) the old ones and lets go of what is older than the span.
export function continued(old, fresh, spanMs) {
  if (!old || old.bucket_ms !== fresh.bucket_ms || old.lines.length !== fresh.lines.length) return fresh;
  const keep = Math.round((fresh.start - old.start) / old.bucket_ms);
  if (keep < 0 || keep > old.lines[0].last.length) return fresh;
  const drop = Math.max(0, Math.round((fresh.end - spanMs - old.start) / old.bucket_ms));
  const join = (before, behind) => [...before.slice(0, keep), ...behind].slice(drop);
  return {
    start: old.start + drop * old.bucket_ms,
    end: fresh.end,
    bucket_ms: fresh.bucket_ms,
    lines: fresh.lines.map((line, i) => ({
      tag: line.tag,
      low: join(old.lines[i].low, line.low),
      high: join(old.lines[i].high, line.high),
      last: join(old.lines[i].last, line.last),
    })),
  };
}

// Columns as uPlot wants them: times in s, then low, high, last of each tag.
export function columns(answer) {
  const count = answer.lines[0]?.last.length ?? 0;
  const times = Array.from({ length: count }, (_, i) => (answer.start + (i + 0.5) * answer.bucket_ms) / 1000);
  return [times, ...answer.lines.flatMap((line) => [line.low, line.high, line.last])];
}

const scaleOf = (one) => one.unit || "1";

function options() {
  const paint = colours();
  const scales = [...new Set(chosen.map(scaleOf))];
  const text = { stroke: css("--quiet"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") } };
  const hour = (_, values) => values.map((v) => shortTime(v * 1e9));
  return {
    width: $("trend-plot").clientWidth || 600,
    height: 280,
    legend: { show: false },
    cursor: { drag: { x: false, y: false } },
    scales: { x: { time: true } },
    axes: [
      { ...text, values: hour },
      ...scales.slice(0, AXES_MAX).map((scale, i) => ({
        ...text,
        scale,
        side: i === 0 ? 3 : 1,
        size: 64,
        grid: i === 0 ? text.grid : { show: false },
        values: (_, values) => values.map((v) => figure(v)),
      })),
    ],
    series: [
      {},
      ...chosen.flatMap((one, i) => {
        const edge = { scale: scaleOf(one), stroke: paint[i], width: 0, points: { show: false }, spanGaps: false };
        return [edge, edge, { ...edge, width: 2, dash: DASHES[i] }];
      }),
    ],
    bands: chosen.map((_, i) => ({ series: [3 * i + 2, 3 * i + 1], fill: `${paint[i]}33` })),
    hooks: { setCursor: [(plot) => showValues(plot.cursor.idx)] },
  };
}

function draw() {
  const wanted = chosen.map((one) => one.tag).join() + css("--text");
  if (drawn !== wanted || !chart) {
    chart?.destroy();
    chart = new uPlot(options(), columns(data), $("trend-plot"));
    drawn = wanted;
  } else {
    chart.setData(columns(data));
  }
  showValues(null);
}

function clear() {
  chart?.destroy();
  chart = null;
  data = null;
}

// The value under the cursor, else the newest.
function showValues(index) {
  if (!data) return;
  chosen.forEach((one, i) => {
    const row = data.lines[i]?.last ?? [];
    const value = index === null || index === undefined ? row.findLast((v) => v !== null) : row[index];
    const node = $("trend-tags").children[i]?.querySelector("output");
    if (node) put(node, value === null || value === undefined ? `${DASH} bad or not kept` : `${figure(value)} ${one.unit}`);
  });
}

const point = (ms) => (ms < 10_000 ? `${ms / 1000} s` : span(ms / 1000));

function chips() {
  const paint = colours();
  $("trend-tags").replaceChildren(
    ...chosen.map((one, i) => {
      const node = make("li", "", "chip");
      node.style.borderColor = paint[i];
      node.appendChild(make("span", one.tag));
      node.appendChild(make("output"));
      const remove = node.appendChild(make("button", "×"));
      remove.setAttribute("type", "button");
      remove.setAttribute("aria-label", `take ${one.tag} out of the trend`);
      remove.onclick = () => removeTag(one.tag);
      return node;
    }),
  );
}

function removeTag(tag) {
  chosen = chosen.filter((one) => one.tag !== tag);
  restart();
}

export function addTag(tag, unit) {
  if (chosen.some((one) => one.tag === tag)) return;
  if (chosen.length >= TAGS_MAX) {
    tell(`${TAGS_MAX} tags fit into one trend: take one out first.`, false);
    return;
  }
  chosen.push({ tag, unit });
  restart();
}

// OEE of the machines is shown until somebody chooses.
let untouched = true;
export function offerTrend(machines) {
  if (!untouched || chosen.length || !machines.length) return;
  untouched = false;
  chosen = machines.slice(0, 3).map((view) => ({ tag: `${view.name}.oee`, unit: "" }));
  restart();
}

function restart() {
  untouched = false;
  clear();
  chips();
  refreshTrend();
}

export async function refreshTrend() {
  clearTimeout(timer);
  const question = ++asked;
  if (chosen.length && !document.hidden && !busy) await load(question);
  const period = Math.min(PERIOD_MS_MAX, Math.max(PERIOD_MS_MIN, data?.bucket_ms ?? 0));
  clearTimeout(timer);
  timer = setTimeout(refreshTrend, period);
}

async function load(question) {
  const query = new URLSearchParams({ span_s: spanS, points: POINTS });
  for (const one of chosen) query.append("tag", one.tag);
  if (data) query.append("since_ms", data.end - data.bucket_ms);
  busy = true;
  try {
    const response = await fetch(`/api/trend?${query}`, { cache: "no-store" });
    const told = await response.json();
    if (!response.ok) {
      put($("trend-line"), told.error);
    } else if (question === asked) {
      data = continued(data, told, spanS * 1000);
      put($("trend-line"), `One point is ${point(data.bucket_ms)}; the band reaches from its lowest to its highest value, a gap is bad quality.`);
      draw();
    }
  } catch {
    put($("trend-line"), "the gateway does not answer");
  } finally {
    busy = false;
  }
  if (question !== asked) refreshTrend();
}

async function suggest() {
  const search = $("trend-search").value.trim();
  const query = new URLSearchParams({ offset: 0, limit: 20, search });
  try {
    const response = await fetch(`/api/tags?${query}`, { cache: "no-store" });
    if (!response.ok) return;
    const { tags } = await response.json();
    const numbers = tags.filter((one) => typeof one.value !== "string");
    $("trend-found").replaceChildren(...numbers.map((one) => new Option(one.name, one.name)));
    const exact = numbers.find((one) => one.name === search);
    if (!exact) return;
    $("trend-search").value = "";
    addTag(exact.name, exact.unit);
  } catch {
    // The stream tells that contact is lost.
  }
}

export function startTrends() {
  $("trend-search").addEventListener("input", suggest);
  for (const node of $("spans").querySelectorAll("[data-span]")) {
    node.addEventListener("click", () => {
      spanS = Number(node.dataset.span);
      for (const other of $("spans").querySelectorAll("[data-span]")) {
        other.setAttribute("aria-pressed", String(other === node));
      }
      clear();
      refreshTrend();
    });
  }
  new ResizeObserver(() => {
    const width = $("trend-plot").clientWidth;
    if (chart && width) chart.setSize({ width, height: 280 });
  }).observe($("trend-plot"));
  timer = setTimeout(refreshTrend, PERIOD_MS_MIN);
}
