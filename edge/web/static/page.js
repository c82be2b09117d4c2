// The page: listens to the stream and shows what it says. All text goes in through textContent.

import {
  alarmState, clockTime, count, DASH, figure, percent, quality, rankAlarms, shortTime, since, size, span, topLosses,
  verdict, words,
} from "./format.js";
import { Series } from "./trend.js";

const LOST_AFTER_MS = 4000;
const TAGS_PERIOD_MS = 2000;
const TAGS_PAGE = 50;
const LOSSES_MAX = 3;
const PROBLEMS_MAX = 5;
const LEVEL_WORDS = { good: "all is well", warn: "needs attention", bad: "not healthy" };

const $ = (id) => document.getElementById(id);

// ---- small tools for the document

function put(node, text) {
  const value = text ?? "";
  if (node.textContent !== value) node.textContent = value;
}

function fields(node) {
  const found = {};
  for (const child of node.querySelectorAll("[data-field]")) found[child.dataset.field] = child;
  return found;
}

// Shows `items` as copies of a template, one per key, reusing what is there so that nothing flickers or loses focus.
function list(container, template, items, key, show) {
  const old = new Map([...container.children].map((node) => [node.dataset.key, node]));
  let previous = null;
  for (const item of items) {
    const name = key(item);
    let node = old.get(name);
    if (node) {
      old.delete(name);
    } else {
      node = $(template).content.firstElementChild.cloneNode(true);
      node.dataset.key = name;
      node.fields = fields(node);
    }
    const place = previous ? previous.nextElementSibling : container.firstElementChild;
    if (place !== node) container.insertBefore(node, place);
    show(node, node.fields, item);
    previous = node;
  }
  for (const node of old.values()) node.remove();
}

function lines(container, texts) {
  while (container.children.length > texts.length) container.lastElementChild.remove();
  texts.forEach((text, i) => {
    put(container.children[i] ?? container.appendChild(document.createElement("li")), text);
  });
}

// ---- header

function showHeader(s) {
  const level = verdict(s);
  $("verdict").dataset.level = level;
  put($("level"), LEVEL_WORDS[level]);
  document.title = `${s.healthy ? "" : "! "}${s.gateway} – Andon`;
  put($("gateway"), s.gateway);
  put($("sentence"), s.sentence);
  put($("tags-alive"), `${count(s.tags_alive)} / ${count(s.tags)}`);
  put($("rate"), count(Math.round(s.readings_per_s)));
  put($("alarm-count"), count(s.alarms.filter((a) => a.active && a.annunciated).length));
  put($("clock"), clockTime(s.time));
  put($("version"), s.version);
}

// ---- machines

function showBar(node, fraction, mark) {
  const share = Math.max(0, Math.min(1, fraction ?? 0));
  node.querySelector("i").style.width = `${share * 100}%`;
  if (mark === undefined) {
    put(node.lastElementChild, percent(fraction));
  } else {
    node.querySelector("b").style.left = `${mark * 100}%`;
    node.dataset.reached = String(fraction !== null && fraction >= mark);
  }
}

function showMachine(s) {
  return (node, f, m) => {
    node.dataset.state = m.state;
    put(f.name, m.name);
    put(f.asset, m.asset);
    put(f.state, words(m.state));
    put(f.reason, m.reason ? words(m.reason) : "");
    put(f.since, m.state_since ? `for ${since(s.time, m.state_since)}` : "");
    put(f.oee, percent(m.oee));
    put(f.target, `target ${percent(m.target_oee)}`);
    f.suspect.hidden = !m.performance_suspect;
    for (const bar of node.querySelectorAll("[data-bar]")) {
      showBar(bar, m[bar.dataset.bar], bar.dataset.bar === "oee" ? m.target_oee : undefined);
    }
    put(f.produced, count(m.produced));
    put(f.rejected, count(m.rejected));
    put(f.shift, m.shift ? `${m.shift} ${shortTime(m.shift_start)}–${shortTime(m.shift_end)}` : "none now");
    put(f.order, m.order ? `${m.order}${m.product ? ` (${m.product})` : ""}` : m.product || DASH);
    lines(f.losses, topLosses(m, LOSSES_MAX));
    const path = f.spark.firstElementChild;
    path.setAttribute("d", series(`OEE of ${m.name}`).path(120, 40, [0, 1]));
  };
}

// ---- alarms

function showAlarm(s) {
  return (node, f, a) => {
    node.dataset.quiet = String(!(a.active && a.annunciated));
    f.priority.dataset.priority = a.priority;
    put(f.priority, a.priority);
    put(f.state, a.state);
    f.state.title = alarmState(a.state);
    put(f.marks, a.shelved_until ? `shelved until ${shortTime(a.shelved_until)}` : alarmState(a.state));
    put(f.since, since(s.time, a.since));
    put(f.message, a.message || a.alarm);
    put(f.alarm, a.message ? a.alarm : "");
    put(f.tag, a.tag || DASH);
    put(f.value, figure(a.value));
    put(f.limit, figure(a.limit));
  };
}

// ---- devices, ring, broker

function showDevice(s) {
  return (node, f, d) => {
    put(f.name, d.name);
    put(f.type, d.type);
    f.state.dataset.state = d.state;
    put(f.state, words(d.state));
    put(f.since, d.since ? `for ${since(s.time, d.since)}` : "");
    put(f.alive, `${count(d.alive)} / ${count(d.tags)}`);
    const problems = Object.entries(d.problems);
    put(f.sentence, d.sentence || (problems.length ? "" : d.reconnects ? `${d.reconnects} reconnects since the start` : ""));
    const shown = problems.slice(0, PROBLEMS_MAX).map(([tag, what]) => `${tag}: ${what}`);
    if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`);
    lines(f.problems, shown);
  };
}

function showStores(s) {
  const { ring, broker } = s;
  $("ring-state").dataset.state = ring.state;
  put($("ring-state"), ring.state);
  const full = ring.full_at ? `, full in ${span((ring.full_at - s.time) / 1e9)}` : "";
  const reach = ring.oldest ? `, reaches back ${since(s.time, ring.oldest)}` : "";
  put($("ring-line"), `${count(ring.rows)} readings in ${size(ring.bytes)} of ${size(ring.bytes_max)}${reach}${full}. ${ring.sentence}`);
  $("broker-state").dataset.state = broker.state;
  put($("broker-state"), broker.state);
  put(
    $("broker-line"),
    broker.state === "off"
      ? broker.sentence
      : `${broker.address}, ${count(broker.published)} published, ${count(broker.unacknowledged)} events unacknowledged. ${broker.sentence}`,
  );
  put(
    $("process-line"),
    `up ${since(s.time, s.started)}, ${size(s.rss_bytes)} memory, step p99 ${s.step_ms_p99.toFixed(1)} ms, ${count(s.readings)} readings`,
  );
}

// ---- trends: collected while the page is open

const trends = new Map();
let chosenTag = "";

function series(name) {
  if (!trends.has(name)) trends.set(name, new Series());
  return trends.get(name);
}

function collect(s) {
  const time = s.time / 1e9;
  for (const m of s.machines) series(`OEE of ${m.name}`).add(time, m.oee);
  series("readings/s").add(time, s.readings_per_s);
}

function showChoices(s) {
  const names = [...s.machines.map((m) => `OEE of ${m.name}`), "readings/s"];
  if (chosenTag) names.push(chosenTag);
  const select = $("trend-choice");
  if ([...select.options].map((o) => o.value).join("\n") === names.join("\n")) return;
  const wanted = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(wanted)) select.value = wanted;
}

function showTrend(s) {
  const name = $("trend-choice").value;
  if (!name) return;
  const shown = series(name);
  const machine = s.machines.find((m) => name === `OEE of ${m.name}`);
  const range = machine ? [0, 1] : (shown.range() ?? [0, 1]);
  const text = machine ? percent : figure;
  $("trend-line").setAttribute("d", shown.path(600, 160, range));
  const target = $("trend-target");
  const y = machine ? 160 - machine.target_oee * 160 : 0;
  target.toggleAttribute("hidden", !machine);
  target.setAttribute("y1", y);
  target.setAttribute("y2", y);
  put($("trend-high"), text(Number(range[1].toPrecision(4))));
  put($("trend-low"), text(Number(range[0].toPrecision(4))));
  const last = shown.points.at(-1);
  put($("trend-now"), `now ${text(last ? last.value : null)}`);
  const length = last ? span(last.time - shown.points[0].time) : "0 s";
  put($("trend-caption"), `${name}, the last ${length}${machine ? `; the dashed line is the target ${percent(machine.target_oee)}` : ""}`);
}

// ---- tags

let tagsOffset = 0;
let tagsAsked = 0;

function showTag(node, f, t) {
  node.dataset.quality = quality(t.quality);
  put(f.name, t.name);
  put(f.value, figure(t.value));
  put(f.unit, t.unit);
  put(f.quality, quality(t.quality));
  put(f.age, t.time ? span(t.age_s) : "never");
  put(f.device, t.device || "derived");
  f.trend.setAttribute("aria-label", `trend of ${t.name}`);
  f.trend.disabled = typeof t.value === "string";
  f.trend.onclick = () => choose(t.name);
}

async function fetchTags(offset, limit, search) {
  const query = new URLSearchParams({ offset, limit, search });
  const response = await fetch(`/api/tags?${query}`, { cache: "no-store" });
  if (!response.ok) throw new Error(`${response.status}`);
  return response.json();
}

async function refreshTags() {
  const asked = ++tagsAsked;
  try {
    const page = await fetchTags(tagsOffset, TAGS_PAGE, $("tags-search").value.trim());
    if (asked !== tagsAsked) return; // a newer question is on its way
    list($("tags"), "tag-row", page.tags, (t) => t.name, showTag);
    const first = page.tags.length ? page.offset + 1 : 0;
    put($("tags-range"), page.tags.length ? `${first} to ${page.offset + page.tags.length}` : "no tag has this in its name");
    $("tags-back").disabled = page.offset === 0;
    $("tags-on").disabled = !page.more;
  } catch {
    put($("tags-range"), "the gateway does not answer");
  }
}

async function collectChosenTag() {
  if (!chosenTag || !latest) return;
  try {
    const page = await fetchTags(0, 50, chosenTag);
    const tag = page.tags.find((t) => t.name === chosenTag);
    const value = tag && typeof tag.value === "number" && quality(tag.quality) !== "bad" ? tag.value : null;
    series(chosenTag).add(latest.time / 1e9, value);
  } catch {
    // The stream tells that contact is lost; the line simply has a hole.
  }
}

function choose(name) {
  if (chosenTag && chosenTag !== name) trends.delete(chosenTag);
  chosenTag = name;
  if (latest) showChoices(latest);
  $("trend-choice").value = name;
  collectChosenTag().then(() => latest && showTrend(latest));
  $("trend-title").scrollIntoView({ block: "nearest" });
}

// ---- contact

let latest = null;
let heardAt = 0;

function show(s) {
  latest = s;
  collect(s);
  showHeader(s);
  list($("machines"), "machine-card", s.machines, (m) => m.name, showMachine(s));
  $("machines-none").hidden = s.machines.length > 0;
  const alarms = rankAlarms(s.alarms);
  list($("alarms"), "alarm-row", alarms, (a) => a.alarm, showAlarm(s));
  $("alarms-table").hidden = alarms.length === 0;
  $("alarms-none").hidden = alarms.length > 0;
  list($("devices"), "device-row", s.devices, (d) => d.name, showDevice(s));
  showStores(s);
  showChoices(s);
  showTrend(s);
}

function showContact() {
  const lost = heardAt > 0 && Date.now() - heardAt > LOST_AFTER_MS;
  const never = heardAt === 0 && performance.now() > LOST_AFTER_MS;
  document.body.dataset.contact = lost || never ? "lost" : heardAt ? "live" : "waiting";
  $("contact").hidden = !(lost || never);
  if (lost) {
    const at = new Date(heardAt).toLocaleTimeString("en-GB");
    put($("contact"), `No contact with the gateway since ${at} (${span((Date.now() - heardAt) / 1000)}). What you see is old.`);
  } else if (never) {
    put($("contact"), "No contact with the gateway yet.");
  }
}

function listen() {
  const stream = new EventSource("/api/stream");
  stream.onmessage = (event) => {
    heardAt = Date.now();
    show(JSON.parse(event.data));
    showContact();
  };
  // A refused stream (too many pages) is closed for good by the browser: ask again ourselves.
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 10_000);
  };
}

$("tags-search").addEventListener("input", () => {
  tagsOffset = 0;
  refreshTags();
});
$("tags-back").addEventListener("click", () => {
  tagsOffset = Math.max(0, tagsOffset - TAGS_PAGE);
  refreshTags();
});
$("tags-on").addEventListener("click", () => {
  tagsOffset += TAGS_PAGE;
  refreshTags();
});
$("trend-choice").addEventListener("change", () => latest && showTrend(latest));
setInterval(showContact, 1000);
setInterval(() => {
  if (!document.hidden) refreshTags();
  collectChosenTag();
}, TAGS_PERIOD_MS);

listen();
refreshTags();
