// The shift as a row of states per machine. A stop is given its reason in two taps: the stop, then the reason.

import { $, list, make, put } from "./dom.js";
import { shortTime, span, words } from "./format.js";
import { command, withRight } from "./session.js";

const PERIOD_MS = 10_000;
const PIECES_MAX = 300;
const STOPS_MAX = 8;
const STOP_S_MIN = 60;
const LABEL_SHARE = 0.09;
const NS = 1e9;

// What a machine does while this reason holds; used where nobody knows the state.
const STATE_OF = {
  breakdown: "down",
  quality_issue: "down",
  changeover: "setup",
  planned_maintenance: "maintenance",
  no_material: "idle",
  no_operator: "idle",
};

let hours = 0;
let machines = [];
let histories = [];
let all = false;
let asked = 0;

export const isStop = (piece) => piece.state !== "running";
const length = (piece) => (piece.end - piece.start) / NS;

export function stopText(piece) {
  const until = piece.open ? "now" : shortTime(piece.end);
  const why = piece.reason ? words(piece.reason) : "no reason yet";
  return `${shortTime(piece.start)}–${until}, ${span(length(piece))}, ${words(piece.state)}: ${why}`;
}

// The longest pieces where there are more than a screen can show; what is left out is shorter than a pixel.
export function thin(pieces, countMax) {
  if (pieces.length <= countMax) return pieces;
  const least = pieces.map(length).sort((x, y) => y - x)[countMax - 1];
  return pieces.filter((piece) => piece.open || length(piece) >= least).slice(-countMax);
}

// Stops that want a person first: the open one, those without a reason, then the rest; newest first within each.
export function rankStops(found) {
  const rank = ({ piece }) => (piece.open ? 0 : piece.reason ? 2 : 1);
  return [...found].sort((x, y) => rank(x) - rank(y) || y.piece.start - x.piece.start);
}

// The command that says why a stop was. An open stop gets it from its start, a past one as a correction.
export function reasonCommand(history, piece, reason) {
  const { asset } = history;
  const state = piece.state === "unknown" ? STATE_OF[reason] : piece.state;
  if (piece.open) return ["set_state", piece.state === "unknown" ? { asset, state, reason } : { asset, reason }];
  const [start, end] = piece.exact;
  const values = { asset, start, end, state, reason, why: "reason entered on the page" };
  if (piece.by) values.replace = true;
  return ["correct", values];
}

function place(node, from, to, history) {
  const whole = history.end - history.start;
  const left = Math.max(0, (from - history.start) / whole);
  node.style.left = `${left * 100}%`;
  node.style.width = `${((to - history.start) / whole - left) * 100}%`;
  return (to - history.start) / whole - left;
}

function bar(history) {
  const row = make("div", "", "history");
  row.appendChild(make("h3", history.machine));
  const track = row.appendChild(make("div", "", "pieces"));
  for (const piece of thin(history.spans, PIECES_MAX)) {
    const node = make(isStop(piece) ? "button" : "span", "", "piece");
    node.dataset.state = piece.state;
    const share = place(node, piece.start, piece.end, history);
    node.title = `${history.machine} ${stopText(piece)}${piece.by ? ` (${piece.by})` : ""}`;
    if (share > LABEL_SHARE) node.textContent = words(piece.reason ?? piece.state);
    if (isStop(piece)) {
      node.setAttribute("type", "button");
      // The list below holds the same stops for the keyboard and the screen reader.
      node.setAttribute("tabindex", "-1");
      node.setAttribute("aria-hidden", "true");
      node.onclick = () => ask(history, piece);
    }
    track.appendChild(node);
  }
  for (const [from, to] of history.pauses) {
    const node = track.appendChild(make("span", "", "pause"));
    node.title = `not planned ${shortTime(from)}–${shortTime(to)}`;
    place(node, from, Math.min(to, history.end), history);
  }
  return row;
}

function axis(history) {
  const row = make("div", "", "history-axis");
  const step = (history.end - history.start) / 4;
  for (let i = 0; i <= 4; i += 1) row.appendChild(make("span", shortTime(history.start + i * step)));
  return row;
}

function showStop(node, fields, { history, piece }) {
  node.dataset.state = piece.state;
  put(fields.machine, history.machine);
  put(fields.note, piece.by ? `by ${piece.by}` : piece.reason ? "" : "why?");
  put(fields.text, stopText(piece));
  node.onclick = () => ask(history, piece);
}

function show() {
  $("histories").replaceChildren(...histories.map(bar), ...(histories.length ? [axis(histories[0])] : []));
  const stops = histories.flatMap((history) =>
    history.spans
      .filter((piece) => isStop(piece) && (piece.open || length(piece) >= STOP_S_MIN))
      .map((piece) => ({ history, piece })),
  );
  const ranked = rankStops(stops);
  const shown = ranked.slice(0, all ? ranked.length : STOPS_MAX);
  list($("stops"), "stop-row", shown, ({ history, piece }) => `${history.machine} ${piece.exact[0]}`, showStop);
  const open = stops.filter(({ piece }) => !piece.reason).length;
  put($("stops-line"), stops.length ? `${stops.length} stops of a minute or more, ${open} without a reason` : "no stop of a minute or more");
  $("stops-all").hidden = ranked.length <= STOPS_MAX;
  put($("stops-all"), all ? "Show fewer" : `Show all ${ranked.length}`);
}

function ask(history, piece) {
  const names = piece.open ? "set_state" : "correct";
  withRight(names, () => {
    put($("reason-title"), `${history.machine}: ${stopText(piece)}`);
    put($("reason-by"), piece.by ? `${piece.by} said so; another reason replaces it.` : "");
    for (const node of $("reasons").querySelectorAll("[data-reason]")) {
      node.setAttribute("aria-pressed", String(node.dataset.reason === piece.reason));
      node.onclick = async () => {
        $("reason").close();
        const [name, values] = reasonCommand(history, piece, node.dataset.reason);
        await command(name, values, `${history.machine}: ${words(node.dataset.reason)}`);
        refreshStates();
      };
    }
    $("reason").showModal();
  });
}

export async function refreshStates() {
  const question = ++asked;
  let answers = [];
  try {
    answers = await Promise.all(
      machines.map(async (machine) => {
        const query = new URLSearchParams({ machine, hours });
        const response = await fetch(`/api/states?${query}`, { cache: "no-store" });
        return response.ok ? response.json() : null;
      }),
    );
  } catch {
    return; // the stream tells that contact is lost
  }
  if (question !== asked) return; // a newer question is on its way
  histories = answers.filter((one) => one !== null);
  show();
}

// The snapshot says which machines there are, and a change of a state asks for the new row at once.
let known = "";
export function noteMachines(views) {
  const now = views.map((view) => `${view.name} ${view.state} ${view.reason} ${view.shift_start}`).join();
  if (now === known) return;
  known = now;
  machines = views.map((view) => view.name);
  $("states").hidden = machines.length === 0;
  refreshStates();
}

export function startStates() {
  for (const node of $("ranges").querySelectorAll("[data-hours]")) {
    node.addEventListener("click", () => {
      hours = Number(node.dataset.hours);
      for (const other of $("ranges").querySelectorAll("[data-hours]")) {
        other.setAttribute("aria-pressed", String(other === node));
      }
      refreshStates();
    });
  }
  $("reason-cancel").addEventListener("click", () => $("reason").close());
  $("stops-all").addEventListener("click", () => {
    all = !all;
    show();
  });
  setInterval(() => {
    if (!document.hidden) refreshStates();
  }, PERIOD_MS);
}
