// Who is at the page: login, logout, what may be done, and the way of every action to the gateway.

import { $, put } from "./dom.js";

const STAY_PERIOD_MS = 60_000;
const TOLD_MS = 8000;
const NOBODY = { user: "", role: "viewer", token: "", commands: [], look: true, login: "open", sentence: "", notice: "" };

let who = NOBODY;
let after = null; // what was wanted when the login came in between
let stayedAt = 0;
let toldTimer = null;
const listeners = [];

export const onSession = (listener) => listeners.push(listener);
export const mayLook = () => who.look;
export const can = (command) => who.commands.includes(command);
export const isEngineer = () => who.role === "engineer";

// One line about what was just done or refused, read aloud by a screen reader.
export function tell(text, ok) {
  put($("told"), text);
  $("told").dataset.ok = String(ok);
  $("told").hidden = false;
  clearTimeout(toldTimer);
  toldTimer = setTimeout(() => {
    $("told").hidden = true;
  }, TOLD_MS);
}

// {ok, status, body}; body.error says what is wrong where ok is false.
export async function post(path, body) {
  const headers = { "Content-Type": "application/json", "X-Andon-Token": who.token };
  try {
    const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), cache: "no-store" });
    const told = await response.json();
    if (response.status === 401 && path !== "/api/login") await refreshSession();
    return { ok: response.ok, status: response.status, body: told };
  } catch {
    return { ok: false, status: 0, body: { error: "The gateway does not answer." } };
  }
}

// Sends a command and tells what came of it. done: the sentence for success, where the gateway has none of its own.
export async function command(name, values, done) {
  const reply = await post("/api/command", { name, arguments: values });
  const ok = reply.ok && reply.body.ok;
  tell(ok ? reply.body.message || done : reply.body.message || reply.body.error || reply.body.code, ok);
  return ok;
}

// Runs `action` at once if its command is allowed, otherwise after a login that allows it.
export function withRight(name, action) {
  if (can(name)) action();
  else if (who.user) tell(`This needs another role; you are ${who.role}.`, false);
  else openLogin(() => can(name) && action());
}

export async function refreshSession() {
  try {
    const response = await fetch("/api/session", { cache: "no-store" });
    if (response.ok) take(await response.json());
  } catch {
    // The stream tells that contact is lost.
  }
}

function take(next) {
  const changed = next.user !== who.user || next.role !== who.role || next.look !== who.look;
  if (changed && who.user && !next.user) tell("You have been logged out.", false);
  who = next;
  put($("user"), who.user ? `${who.user}, ${who.role}` : "");
  put($("login-open"), who.user ? "Log out" : "Log in");
  document.body.dataset.role = who.user ? who.role : "nobody";
  put($("login-notice"), who.notice);
  $("login-notice").hidden = !who.notice;
  put($("login-obstacle"), who.sentence);
  $("login-obstacle").hidden = who.login === "open";
  $("login-send").disabled = who.login !== "open";
  if (changed) listeners.forEach((listener) => listener());
}

function openLogin(then) {
  after = then ?? null;
  put($("login-error"), "");
  $("login").showModal();
  $("login-name").focus();
}

async function logIn() {
  $("login-send").disabled = true;
  const reply = await post("/api/login", { name: $("login-name").value, password: $("login-password").value });
  $("login-send").disabled = false;
  $("login-password").value = "";
  if (!reply.ok) {
    put($("login-error"), reply.body.error);
    $("login-password").focus();
    return;
  }
  $("login").close();
  await refreshSession();
  tell(`Logged in as ${reply.body.user}, ${reply.body.role}.`, true);
  const wanted = after;
  after = null;
  if (wanted) wanted();
}

async function logOut() {
  await post("/api/logout", {});
  await refreshSession();
}

// A touch of the page prolongs the login; what the page asks by itself does not.
function stay() {
  if (!who.user || Date.now() - stayedAt < STAY_PERIOD_MS) return;
  stayedAt = Date.now();
  post("/api/stay", {});
}

export function startSession() {
  $("login-form").addEventListener("submit", (event) => {
    event.preventDefault();
    logIn();
  });
  $("login-cancel").addEventListener("click", () => $("login").close());
  $("login-open").addEventListener("click", () => (who.user ? logOut() : openLogin()));
  for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, stay);
  setInterval(refreshSession, STAY_PERIOD_MS / 2);
  return refreshSession();
}
