// The alarm list and what a person does about an alarm: acknowledge what was seen, shelve for a while, reset.

import { $, list, put } from "./dom.js";
import { alarmState, DASH, figure, rankAlarms, shortTime, since } from "./format.js";
import { can, command, onSession, tell, withRight } from "./session.js";

const SHELVE_REASON_MAX = 200;

let shown = null;
let shelving = null;

function button(node, visible, action) {
  node.hidden = !visible;
  node.onclick = action;
}

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
    // The occurrence is the one on the screen: what has come again since is not acknowledged by mistake.
    const { alarm, occurrence } = a;
    const plain = !["G", "H", "I"].includes(a.state);
    button(f.acknowledge, !a.acknowledged, () => acknowledge(alarm, occurrence));
    button(f.reset, a.state === "F", () => withRight("reset", () => command("reset", { alarm }, `${alarm} is reset.`)));
    button(f.shelve, plain && a.active, () => withRight("shelve", () => openShelve(alarm)));
    button(f.unshelve, a.state === "G", () => withRight("unshelve", () => command("unshelve", { alarm }, `${alarm} is back.`)));
    for (const action of ["acknowledge", "reset", "shelve", "unshelve"]) {
      f[action].setAttribute("aria-label", `${action} ${alarm}`);
    }
  };
}

function acknowledge(alarm, occurrence) {
  withRight("acknowledge", () => command("acknowledge", { alarm, occurrence }, `${alarm} is acknowledged.`));
}

export function showAlarms(s) {
  shown = s;
  const alarms = rankAlarms(s.alarms);
  list($("alarms"), "alarm-row", alarms, (one) => one.alarm, showAlarm(s));
  $("alarms-table").hidden = alarms.length === 0;
  $("alarms-none").hidden = alarms.length > 0;
  const open = alarms.filter((one) => !one.acknowledged && one.annunciated);
  $("acknowledge-all").hidden = open.length < 2;
  $("alarms-hint").hidden = alarms.length === 0 || can("acknowledge");
}

function openShelve(alarm) {
  shelving = alarm;
  put($("shelve-alarm"), alarm);
  put($("shelve-error"), "");
  $("shelve-reason").value = "";
  $("shelve").showModal();
  $("shelve-reason").focus();
}

async function shelve(choice) {
  const reason = $("shelve-reason").value.trim();
  if (!reason) {
    put($("shelve-error"), "Say why: the next shift wants to know.");
    $("shelve-reason").focus();
    return;
  }
  const values = { alarm: shelving, reason: reason.slice(0, SHELVE_REASON_MAX) };
  if (choice === "once") values.one_shot = true;
  else values.duration_s = Number(choice);
  $("shelve").close();
  await command("shelve", values, `${shelving} is shelved.`);
}

// One by one, each with the occurrence that is on the screen.
async function acknowledgeAll() {
  const open = shown.alarms.filter((one) => !one.acknowledged && one.annunciated);
  let done = 0;
  for (const { alarm, occurrence } of open) done += await command("acknowledge", { alarm, occurrence }, "");
  tell(`${done} of ${open.length} alarms are acknowledged.`, done === open.length);
}

export function startAlarms() {
  for (const choice of $("shelve-choices").querySelectorAll("[data-duration]")) {
    choice.addEventListener("click", () => shelve(choice.dataset.duration));
  }
  $("shelve-cancel").addEventListener("click", () => $("shelve").close());
  $("acknowledge-all").addEventListener("click", () => withRight("acknowledge", acknowledgeAll));
  onSession(() => shown && showAlarms(shown));
}
