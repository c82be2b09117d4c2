// The SQL box of engineers: one read-only statement, its rows or the sentence that says what is wrong.

import { $, make, put } from "./dom.js";
import { isEngineer, onSession, post } from "./session.js";

let running = false;

function cell(value) {
  return value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
}

function row(tag, values, types) {
  const node = document.createElement("tr");
  values.forEach((value, i) => {
    const number = typeof value === "number" || /INT|DOUBLE|FLOAT|DECIMAL/.test(types[i] ?? "");
    node.appendChild(make(tag, cell(value), number ? "number" : ""));
  });
  return node;
}

async function run() {
  const sql = $("sql-text").value.trim();
  if (!sql || running) return;
  running = true;
  put($("sql-line"), "running");
  const began = performance.now();
  const reply = await post("/api/sql", { sql });
  running = false;
  $("sql-table").hidden = !reply.ok;
  $("sql-line").dataset.ok = String(reply.ok);
  if (!reply.ok) {
    put($("sql-line"), reply.body.error);
    return;
  }
  const { columns, types, rows, truncated } = reply.body;
  $("sql-head").replaceChildren(row("th", columns, types));
  $("sql-rows").replaceChildren(...rows.map((values) => row("td", values, types)));
  const more = truncated ? `, there are more: add LIMIT and OFFSET, or \`andon export\`` : "";
  put($("sql-line"), `${rows.length} rows in ${Math.round(performance.now() - began)} ms${more}`);
}

export function startSql() {
  $("sql-run").addEventListener("click", run);
  $("sql-text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
  });
  $("sql-examples").addEventListener("change", () => {
    $("sql-text").value = $("sql-examples").value;
  });
  onSession(() => {
    $("sql").hidden = !isEngineer();
  });
}
