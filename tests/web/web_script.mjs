// Runs the page's own script on its own document. usage: node web_script.mjs STATIC_FOLDER SNAPSHOTS_JSON

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { pathToFileURL } from "node:url";

import { Node, parse } from "./web_dom.mjs";

const [folder, snapshots] = process.argv.slice(2);
const { plant, plain, now, day } = JSON.parse(readFileSync(snapshots, "utf8"));
const module = (name) => import(pathToFileURL(`${folder}/${name}`).href);
const format = await module("format.js");
const { Series } = await module("trend.js");

// ---- the document and the world around it

const root = parse(readFileSync(`${folder}/index.html`, "utf8"));
const ids = new Map([...root.all()].filter((n) => n.attributes.id).map((n) => [n.attributes.id, n]));
const body = root.querySelector("body");
const $ = (id) => ids.get(id);
const timers = [];
const streams = [];
let clock = 1_000_000;
let tagPage = { offset: 0, tags: [], more: false };
const asked = [];
const charts = [];
const trends = [];
const touches = [];
const sent = [];
const nobody = { user: "", role: "viewer", token: "", commands: [], look: true, login: "open", sentence: "", notice: "" };
const maria = { ...nobody, user: "maria", role: "operator", token: "t0ken", commands: ["acknowledge", "correct", "set_state", "shelve", "reset"] };
let session = nobody;
let reply = { ok: true, code: "ok", message: "" };
let refusal = null;
let trend = { start: 0, end: 3000, bucket_ms: 1000, lines: [] };

globalThis.document = {
  getElementById: $, createElement: (tag) => new Node(tag), body, hidden: false, title: "", activeElement: null,
  documentElement: body, addEventListener: (name, work) => touches.push(work),
};
globalThis.getComputedStyle = () => ({ getPropertyValue: (name) => `var(${name})` });
globalThis.ResizeObserver = class {
  observe() {}
};
globalThis.uPlot = class {
  constructor(options, data, node) {
    Object.assign(this, { options, data, node });
    charts.push(this);
  }
  setData(data) { this.data = data; }
  setSize() {}
  destroy() { this.gone = true; }
};
globalThis.Option = class extends Node {
  constructor(text, value) {
    super("option");
    this.text = text;
    this.value = value;
  }
};
globalThis.EventSource = class {
  static CLOSED = 2;
  readyState = 1;
  constructor(address) {
    assert.equal(address, "/api/stream");
    streams.push(this);
  }
};
const json = (status, value) => ({ ok: status < 300, status, json: async () => JSON.parse(JSON.stringify(value)) });
globalThis.fetch = async (address, options = {}) => {
  if (options.method === "POST") {
    const body = JSON.parse(options.body);
    sent.push([address, body, options.headers["X-Andon-Token"]]);
    if (refusal) return refusal;
    if (address === "/api/login") session = maria;
    return json(200, address === "/api/login" ? { user: "maria", role: "operator" } : reply);
  }
  if (address === "/api/session") return json(200, session);
  if (address.startsWith("/api/states")) return json(200, { ...day, machine: new URLSearchParams(address.slice(12)).get("machine") });
  if (address.startsWith("/api/trend")) {
    const tags = new URLSearchParams(address.slice(11)).getAll("tag");
    trends.push(address);
    return json(200, { ...trend, lines: tags.map((tag) => ({ tag, low: [1, null, 3], high: [2, null, 4], last: [1.5, null, 3.5] })) });
  }
  asked.push(address);
  return json(200, tagPage);
};
globalThis.setInterval = (work) => timers.push(work);
globalThis.setTimeout = () => 0;
globalThis.clearTimeout = () => {};
Date.now = () => clock;

await module("page.js");
const hear = (snapshot) => streams[0].onmessage({ data: JSON.stringify(snapshot) });
const settle = async () => {
  for (let i = 0; i < 12; i += 1) await new Promise((done) => setImmediate(done));
};
const second = () => timers.forEach((work) => work());

test("before the first word the page says that it waits", () => {
  assert.equal(body.dataset.contact, "waiting");
  assert.equal($("sentence").textContent, "waiting for the gateway");
});

test("a snapshot fills the page", () => {
  hear(plant);
  assert.equal(body.dataset.contact, "live");
  assert.equal($("sentence").textContent, plant.sentence);
  assert.equal($("level").textContent, "needs attention");
  assert.equal($("tags-alive").textContent, "62 / 86");
  assert.equal($("alarm-count").textContent, "3");
  const [cnc, press, strip] = $("machines").children;
  assert.equal(cnc.field("state"), "running");
  assert.equal(cnc.field("oee"), "88 %");
  assert.equal(press.dataset.state, "down");
  assert.equal(press.field("reason"), "breakdown");
  assert.match(press.field("losses"), /breakdowns: 31 min, 62 parts, 248 EUR/);
  assert.match(strip.field("losses"), /unknown time: 5 min 12 s/);
  const bars = Object.fromEntries(strip.querySelectorAll("[data-bar]").map((bar) => [bar.dataset.bar, bar]));
  assert.equal(bars.performance.querySelector("i").style.width, "100%");
  assert.equal(bars.performance.lastElementChild.textContent, "108 %");
  assert.equal(bars.oee.querySelector("b").style.left, "85%");
  assert.equal(bars.oee.dataset.reached, "false");
});

test("alarms stand in the order of urgency, devices with what is the matter", () => {
  const rows = $("alarms").children;
  assert.deepEqual(rows.map((row) => row.field("priority")), ["critical", "high", "medium", "low"]);
  assert.equal(rows[0].field("message"), "Bearing of the press is too hot");
  assert.equal(rows[3].dataset.quiet, "true");
  assert.match(rows[3].field("marks"), /^shelved until/);
  assert.equal($("alarms-none").hidden, true);
  const [, press, strip] = $("devices").children;
  assert.match(press.field("sentence"), /No answer from 10\.20\.0\.7:502/);
  assert.equal(strip.field("problems").split("tags.csv").length, 3);
});

test("rows are kept as long as they live, and go when they are gone", () => {
  const first = $("alarms").children[0];
  hear({ ...plant, alarms: plant.alarms.slice(0, 1) });
  assert.equal($("alarms").children.length, 1);
  assert.equal($("alarms").children[0], first);
  hear(plain);
  assert.equal($("alarms").children.length, 0);
  assert.equal($("alarms-none").hidden, false);
  assert.equal($("machines").children.length, 0);
  assert.equal($("machines-none").hidden, false);
  assert.equal($("level").textContent, "not healthy");
});

test("silence is shown, and its end", () => {
  hear(plant);
  assert.equal($("contact").hidden, true);
  clock += 32_000;
  second();
  assert.equal(body.dataset.contact, "lost");
  assert.equal($("contact").hidden, false);
  assert.match($("contact").textContent, /^No contact with the gateway since .* \(32 s\)/);
  hear(plant);
  assert.equal(body.dataset.contact, "live");
  assert.equal($("contact").hidden, true);
});

test("text from the plant stays text", async () => {
  const name = "<img src=x onerror=alert(1)>";
  tagPage = { offset: 0, more: true, tags: [{ name, unit: "<b>", value: "<i>", quality: 0, time: 1, age_s: 2, device: "" }] };
  second();
  await settle();
  const [row] = $("tags").children;
  assert.equal(row.field("name"), name);
  assert.equal(row.querySelectorAll("img").length, 0);
  assert.equal(row.dataset.quality, "bad");
});

test("the search asks from the start, the next page from where the last one ended", async () => {
  $("tags-search").value = " press ";
  $("tags-search").listeners.input();
  assert.equal(asked.at(-1), "/api/tags?offset=0&limit=50&search=press");
  await settle();
  $("tags-on").listeners.click();
  assert.equal(asked.at(-1), "/api/tags?offset=50&limit=50&search=press");
  $("tags-back").listeners.click();
  assert.equal(asked.at(-1), "/api/tags?offset=0&limit=50&search=press");
  await settle();
});

test("a chosen tag joins the trend, holes stay holes", async () => {
  assert.match(trends[0], /tag=cnc\.oee&tag=press\.oee&tag=strip\.oee/);
  tagPage = { offset: 0, more: false, tags: [{ name: "a.b", unit: "mm", value: 5, quality: 192, time: 1, age_s: 2, device: "" }] };
  second();
  await settle();
  $("tags").children[0].querySelectorAll("[data-field]").find((n) => n.dataset.field === "trend").onclick();
  await settle();
  assert.match(trends.at(-1), /tag=a\.b/);
  const chart = charts.at(-1);
  assert.equal(chart.data.length, 1 + 3 * 4);
  assert.deepEqual(chart.data[12], [1.5, null, 3.5]);
  assert.match($("trend-tags").children[3].textContent, /a\.b 3\.5 mm/);
  $("trend-tags").children[0].querySelector("button").onclick();
  await settle();
  assert.equal(charts.at(-1).data.length, 1 + 3 * 3);
  assert.ok(chart.gone);
});

test("an answer continues the one before and lets go of what is too old", async () => {
  const { continued } = await module("trends.js");
  const line = (...last) => [{ tag: "a", low: last, high: last, last }];
  const old = { start: 0, end: 3000, bucket_ms: 1000, lines: line(1, 2, 3) };
  const joined = continued(old, { start: 2000, end: 5000, bucket_ms: 1000, lines: line(30, 4, 5) }, 4000);
  assert.deepEqual(joined, { start: 1000, end: 5000, bucket_ms: 1000, lines: line(2, 30, 4, 5) });
  const later = { start: 9000, end: 10000, bucket_ms: 1000, lines: line(9) };
  assert.equal(continued(old, later, 4000), later);
});

test("who is not logged in is asked to, and then what he wanted happens", async () => {
  hear(plant);
  const [first] = $("alarms").children;
  assert.equal($("alarms-hint").hidden, false);
  first.fields.acknowledge.onclick();
  assert.equal($("login").open, true);
  assert.equal(sent.length, 0);
  $("login-name").value = "maria";
  $("login-password").value = "a very fine password";
  $("login-form").listeners.submit({ preventDefault() {} });
  await settle();
  assert.equal($("login").open, false);
  assert.equal($("login-password").value, "");
  assert.equal($("user").textContent, "maria, operator");
  assert.deepEqual(sent.at(-1), [
    "/api/command", { name: "acknowledge", arguments: { alarm: "press.bearing_hot", occurrence: "press.bearing_hot-1" } }, "t0ken",
  ]);
  assert.equal($("told").dataset.ok, "true");
  assert.equal($("alarms-hint").hidden, true);
  assert.equal($("sql").hidden, true);
});

test("a refused command is told in the gateway's words", async () => {
  reply = { ok: false, code: "stale_occurrence", message: "alarm press.bearing_hot has come again since" };
  $("alarms").children[0].fields.acknowledge.onclick();
  await settle();
  assert.equal($("told").textContent, reply.message);
  assert.equal($("told").dataset.ok, "false");
  reply = { ok: true, code: "ok", message: "" };
});

test("shelving wants a reason and a time", async () => {
  const row = $("alarms").children.find((node) => !node.fields.shelve.hidden);
  row.fields.shelve.onclick();
  assert.equal($("shelve").open, true);
  const before = sent.length;
  const hour = $("shelve-choices").querySelectorAll("[data-duration]").find((node) => node.dataset.duration === "3600");
  hour.click();
  assert.equal(sent.length, before);
  assert.match($("shelve-error").textContent, /Say why/);
  $("shelve-reason").value = " sensor is faulty ";
  hour.click();
  await settle();
  assert.deepEqual(sent.at(-1)[1].arguments, { alarm: row.dataset.key, reason: "sensor is faulty", duration_s: 3600 });
});

test("a stop gets its reason in two taps, to the nanosecond", async () => {
  assert.equal($("histories").children.length, plant.machines.length + 1);
  const stop = $("stops").children.find((node) => /down: no reason yet/.test(node.textContent));
  assert.match(stop.textContent, /why\?/);
  stop.onclick();
  assert.equal($("reason").open, true);
  $("reasons").children.find((node) => node.dataset.reason === "no_material").onclick();
  await settle();
  const [path, body] = sent.at(-1);
  assert.equal(path, "/api/command");
  assert.equal(body.name, "correct");
  assert.deepEqual([body.arguments.state, body.arguments.reason], ["down", "no_material"]);
  assert.match(body.arguments.start, /^\d{19}$/);
  const piece = day.spans.find((one) => one.exact[0] === body.arguments.start);
  assert.equal(body.arguments.end, piece.exact[1]);
  assert.equal($("reason").open, false);
});

test("an open stop takes its reason from its start, unknown time also a state, another's word is replaced knowingly", async () => {
  const { reasonCommand, rankStops, thin } = await module("states.js");
  const history = { asset: "x/cnc" };
  const piece = { start: 0, end: 1, state: "idle", reason: null, by: "", open: true, exact: ["0", "1"] };
  assert.deepEqual(reasonCommand(history, piece, "no_material"), ["set_state", { asset: "x/cnc", reason: "no_material" }]);
  const unknown = reasonCommand(history, { ...piece, state: "unknown", open: false, by: "erik" }, "changeover")[1];
  assert.deepEqual([unknown.state, unknown.replace, unknown.start], ["setup", true, "0"]);
  const order = rankStops([{ piece: { start: 1, reason: "breakdown" } }, { piece: { start: 2 } }, { piece: { start: 3 } }, { piece: { start: 0, open: true } }]);
  assert.deepEqual(order.map((one) => one.piece.start), [0, 3, 2, 1]);
  const many = Array.from({ length: 900 }, (_, i) => ({ start: i * 1e9, end: (i + 1 + (i % 7 === 0)) * 1e9 }));
  assert.ok(thin(many, 300).length <= 300);
});

test("touching the page keeps the login, doing nothing does not", async () => {
  const before = sent.length;
  second();
  await settle();
  assert.equal(sent.length, before);
  clock += 120_000;
  touches[0]();
  touches[0]();
  await settle();
  assert.deepEqual(sent.slice(before).map(([path]) => path), ["/api/stay"]);
});

test("the end of a login is told and takes the buttons' power", async () => {
  session = nobody;
  refusal = json(401, { error: "Log in first" });
  $("alarms").children[0].fields.acknowledge.onclick();
  await settle();
  refusal = null;
  assert.equal($("user").textContent, "");
  const before = sent.length;
  $("alarms").children[0].fields.acknowledge.onclick();
  assert.equal($("login").open, true);
  assert.equal(sent.length, before);
});

test("figures are short and honest", () => {
  assert.deepEqual([0, 1234.56789, 1e-7, 2e12, null, "text"].map(format.figure), ["0", "1234.57", "1.000e-7", "2.000e+12", "–", "text"]);
  assert.deepEqual([null, 0, 0.8849, 1.08].map(format.percent), ["–", "0 %", "88 %", "108 %"]);
  assert.deepEqual([59.9, 61, 7260, 180000, -5].map(format.span), ["59 s", "1 min 1 s", "2 h 1 min", "2 d 2 h", "0 s"]);
  assert.deepEqual([999, 1500, 2e9, 5e13].map(format.size), ["999 B", "1.5 kB", "2.0 GB", "50.0 TB"]);
  assert.deepEqual([192, 64, 0].map(format.quality), ["good", "uncertain", "bad"]);
});

test("times are those of the plant, not of the screen", () => {
  const noon = Date.UTC(2026, 6, 1, 12) * 1e6;
  format.useZone("Europe/Berlin");
  assert.equal(format.shortTime(noon), "14:00");
  assert.equal(format.clockTime(noon), "14:00:00");
  format.useZone("UTC");
  assert.equal(format.shortTime(noon), "12:00");
});

test("doubtful figures say so", () => {
  hear({ ...plant, machines: [{ ...plant.machines[0], uncertain: true, unknown_s: 700 }] });
  const [card] = $("machines").children;
  assert.match(card.field("oee"), /^~\d+ %$/);
  assert.match(card.field("doubt"), /11 min 40 s of it are unknown/);
  assert.equal(card.fields.doubt.hidden, false);
  hear(plant);
  assert.equal($("machines").children[0].fields.doubt.hidden, true);
});

test("the verdict says what the snapshot says", () => {
  assert.equal(format.verdict(plant), "warn");
  assert.equal(format.verdict(plain), "bad");
  const devices = [plant.devices[0]];
  assert.equal(format.verdict({ ...plant, devices }), "good");
  assert.equal(format.verdict({ ...plant, devices, ring: { ...plant.ring, state: "degraded" } }), "warn");
});

test("a series keeps its whole span in a bounded number of points", () => {
  const series = new Series(100);
  for (let i = 0; i < 10_000; i += 1) series.add(i, i);
  assert.ok(series.points.length < 100);
  assert.equal(series.points[0].time, 0);
  assert.ok(series.points.at(-1).time > 9_700);
  const gaps = series.points.slice(1).map((p, i) => p.time - series.points[i].time);
  assert.ok(Math.max(...gaps) <= 2 * Math.min(...gaps) + 2);
});

test("a hole in a series is a hole in the line", () => {
  const series = new Series();
  [1, null, 3, 4].forEach((value, i) => series.add(i, value));
  assert.equal(series.path(300, 10, [0, 10]), "M0.0 9.0M200.0 7.0L300.0 6.0");
  assert.equal(new Series().range(), null);
});
