// The page: listens to the stream and shows what it says. What a person does is in the modules beside this one.

import { showAlarms, startAlarms } from "./alarms.js";
import { $, lines, list, put } from "./dom.js";
import { clockTime, count, DASH, doubt, percent, shortTime, since, size, span, topLosses, useZone, verdict, words } from "./format.js";
import { mayLook, onSession, startSession } from "./session.js";
import { startSql } from "./sql.js";
import { noteMachines, startStates } from "./states.js";
import { refreshTags, startTags } from "./tags.js";
import { Series } from "./trend.js";
import { offerTrend, startTrends } from "./trends.js";

const LOST_AFTER_MS = 4000;
const LOSSES_MAX = 3;
const PROBLEMS_MAX = 5;
const LEVEL_WORDS = { good: "all is well", warn: "needs attention", bad: "not healthy" };

// OEE since the page was opened, for the small line in the card.
const sparks = new Map();

function series(name) {
  if (!sparks.has(name)) sparks.set(name, new Series());
  return sparks.get(name);
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
    put(f.oee, `${m.uncertain && m.oee !== null ? "~" : ""}${percent(m.oee)}`);
    put(f.doubt, doubt(m));
    f.doubt.hidden = !m.uncertain || m.performance_suspect;
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
    path.setAttribute("d", series(m.name).path(120, 40, [0, 1]));
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

// ---- contact

let latest = null;
let heardAt = 0;

function show(s) {
  latest = s;
  useZone(s.time_zone);
  for (const m of s.machines) series(m.name).add(s.time / 1e9, m.oee);
  showHeader(s);
  list($("machines"), "machine-card", s.machines, (m) => m.name, showMachine(s));
  $("machines-none").hidden = s.machines.length > 0;
  showAlarms(s);
  list($("devices"), "device-row", s.devices, (d) => d.name, showDevice(s));
  showStores(s);
  noteMachines(s.machines);
  offerTrend(s.machines);
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

let stream = null;

function listen() {
  if (!mayLook()) return; // onSession calls again
  stream?.close();
  stream = new EventSource("/api/stream");
  const own = stream;
  stream.onmessage = (event) => {
    heardAt = Date.now();
    show(JSON.parse(event.data));
    showContact();
  };
  // A refused stream (too many pages) is closed for good by the browser: ask again ourselves.
  stream.onerror = () => {
    if (own === stream && own.readyState === EventSource.CLOSED) setTimeout(listen, 10_000);
  };
}

$("locked-login").addEventListener("click", () => $("login-open").click());
onSession(() => {
  const open = mayLook();
  $("locked").hidden = open;
  $("plant").hidden = !open;
  if (open && !latest) {
    listen();
    refreshTags();
  }
});
setInterval(showContact, 1000);
startAlarms();
startStates();
startTrends();
startSql();
await startSession();
listen();
startTags();
