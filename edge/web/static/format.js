// Numbers and words for people. Without document and clock; the one thing it remembers is the site's time zone.

const NS = 1e9;

export const DASH = "–";

const STATE_NAMES = {
  A: "normal",
  B: "active, not acknowledged",
  C: "active, acknowledged",
  D: "back to normal, not acknowledged",
  E: "latched, not acknowledged",
  F: "latched, acknowledged",
  G: "shelved",
  H: "suppressed by design",
  I: "out of service",
};

const PRIORITY_RANK = { critical: 0, high: 1, medium: 2, low: 3 };

export function percent(fraction) {
  return fraction === null || fraction === undefined ? DASH : `${Math.round(fraction * 100)} %`;
}

export function count(value) {
  if (value === null || value === undefined) return DASH;
  const digits = Number.isInteger(value) || Math.abs(value) >= 1000 ? 0 : 1;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

// A measured value: six significant digits say more than any sensor knows.
export function figure(value) {
  if (value === null || value === undefined) return DASH;
  if (typeof value !== "number") return String(value);
  if (value !== 0 && (Math.abs(value) >= 1e9 || Math.abs(value) < 1e-4)) return value.toExponential(3);
  return value.toLocaleString("en", { maximumSignificantDigits: 6, useGrouping: false });
}

export function size(bytes) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (bytes < 1000) return `${unit === "B" ? bytes : bytes.toFixed(1)} ${unit}`;
    bytes /= 1000;
  }
  return `${bytes.toFixed(1)} TB`;
}

export function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// Both in ns UTC by the gateway's clock, so that a wall screen with a wrong clock shows right durations.
export function since(now, then) {
  return then ? span((now - then) / NS) : DASH;
}

let whole = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
let short = new Intl.DateTimeFormat("en-GB", { timeStyle: "short" });
let zone = "";

// From here on times are those of the plant, wherever the screen stands.
export function useZone(timeZone) {
  if (timeZone === zone) return;
  zone = timeZone;
  whole = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium", timeZone });
  short = new Intl.DateTimeFormat("en-GB", { timeStyle: "short", timeZone });
}

export function clockTime(ns) {
  return whole.format(new Date(ns / 1e6));
}

export function shortTime(ns) {
  return short.format(new Date(ns / 1e6));
}

export function words(name) {
  return name.replaceAll("_", " ");
}

export function quality(code) {
  if (code >= 192) return "good";
  return code >= 64 ? "uncertain" : "bad";
}

export function alarmState(letter) {
  return STATE_NAMES[letter] ?? letter;
}

// In the order in which a person should look: annunciated, active, priority, unacknowledged, newest.
export function rankAlarms(alarms) {
  const rank = (a) => [!a.annunciated, !a.active, PRIORITY_RANK[a.priority] ?? 4, a.acknowledged, -a.since].map(Number);
  return alarms
    .map((alarm) => ({ alarm, key: rank(alarm) }))
    .sort((x, y) => {
      const i = x.key.findIndex((value, at) => value !== y.key[at]);
      return i < 0 ? 0 : x.key[i] - y.key[i];
    })
    .map((entry) => entry.alarm);
}

// The largest losses of the shift as lines; time of which nobody knows anything always has a line of its own.
export function topLosses(machine, countMax) {
  const lines = machine.losses
    .filter((loss) => loss.minutes >= 0.05 && loss.loss !== "unknown" && loss.loss !== "unobserved")
    .sort((a, b) => b.minutes - a.minutes)
    .slice(0, countMax)
    .map((loss) => `${words(loss.loss)}: ${lossLine(loss)}`);
  if (machine.unknown_s >= 1) lines.push(`unknown time: ${span(machine.unknown_s)}`);
  return lines.length ? lines : ["none so far"];
}

// Why a machine's figures are not to be acted on yet, in words.
export function doubt(machine) {
  if (machine.oee === null) return "There is no figure yet: nothing is known of this shift.";
  const known = Math.max(0, machine.unknown_s) > 0 ? ` ${span(machine.unknown_s)} of it are unknown.` : "";
  return `~ Uncertain: too little of this shift has been observed to judge it.${known}`;
}

function lossLine(loss) {
  const line = [loss.minutes >= 10 ? `${Math.round(loss.minutes)} min` : `${loss.minutes.toFixed(1)} min`];
  if (loss.parts) line.push(`${count(Math.round(loss.parts))} parts`);
  if (loss.money) line.push(`${count(Math.round(loss.money))} ${loss.currency}`);
  return line.join(", ");
}

// "bad": no data flows. "warn": data flows, but a part of the gateway wants a person. "good": all is well.
export function verdict(snapshot) {
  if (!snapshot.healthy) return "bad";
  const devices = snapshot.devices.every((d) => d.state === "connected" && Object.keys(d.problems).length === 0);
  const outward = snapshot.ring.state === "ok" && ["connected", "off"].includes(snapshot.broker.state);
  return devices && outward ? "good" : "warn";
}
