// Runs the page's own script on its own document. usage: node web_script.mjs STATIC_FOLDER SNAPSHOTS_JSON

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { pathToFileURL } from "node:url";

import { Node, parse } from "./web_dom.mjs";

const [folder, snapshots] = process.argv.slice(2);
const { plant, plain, now } = JSON.parse(readFileSync(snapshots, "utf8"));
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

globalThis.document = { getElementById: $, createElement: (tag) => new Node(tag), body, hidden: false, title: "" };
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
globalThis.fetch = async (address) => {
  asked.push(address);
  return { ok: true, json: async () => tagPage };
};
globalThis.setInterval = (work) => timers.push(work);
Date.now = () => clock;

await module("page.js");
const hear = (snapshot) => streams[0].onmessage({ data: JSON.stringify(snapshot) });
const settle = () => new Promise((done) => setImmediate(done));
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

test("a chosen tag becomes the trend", async () => {
  tagPage = { offset: 0, more: false, tags: [{ name: "a.b", unit: "", value: 5, quality: 192, time: 1, age_s: 2, device: "" }] };
  second();
  await settle();
  $("tags").children[0].querySelectorAll("[data-field]").find((n) => n.dataset.field === "trend").onclick();
  await settle();
  assert.equal($("trend-choice").value, "a.b");
  assert.equal($("trend-now").textContent, "now 5");
  assert.match($("trend-line").attributes.d, /^M0\.0 /);
});

test("figures are short and honest", () => {
  assert.deepEqual([0, 1234.56789, 1e-7, 2e12, null, "text"].map(format.figure), ["0", "1234.57", "1.000e-7", "2.000e+12", "–", "text"]);
  assert.deepEqual([null, 0, 0.8849, 1.08].map(format.percent), ["–", "0 %", "88 %", "108 %"]);
  assert.deepEqual([59.9, 61, 7260, 180000, -5].map(format.span), ["59 s", "1 min 1 s", "2 h 1 min", "2 d 2 h", "0 s"]);
  assert.deepEqual([999, 1500, 2e9, 5e13].map(format.size), ["999 B", "1.5 kB", "2.0 GB", "50.0 TB"]);
  assert.deepEqual([192, 64, 0].map(format.quality), ["good", "uncertain", "bad"]);
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
