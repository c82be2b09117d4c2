// The table of tags: value, quality, age, page by page.

import { $, list, put } from "./dom.js";
import { figure, quality, span } from "./format.js";
import { mayLook } from "./session.js";
import { addTag } from "./trends.js";

const TAGS_PERIOD_MS = 2000;
const TAGS_PAGE = 50;

let tagsOffset = 0;
let tagsAsked = 0;

function showTag(node, f, t) {
  node.dataset.quality = quality(t.quality);
  put(f.name, t.name);
  put(f.value, figure(t.value));
  put(f.unit, t.unit);
  put(f.quality, quality(t.quality));
  put(f.age, t.age_s >= 0 && t.time ? span(t.age_s) : "never");
  put(f.device, t.device || "derived");
  f.trend.setAttribute("aria-label", `trend of ${t.name}`);
  f.trend.disabled = typeof t.value === "string";
  f.trend.onclick = () => {
    addTag(t.name, t.unit);
    $("trend-title").scrollIntoView({ block: "start" });
  };
}

export async function refreshTags() {
  if (!mayLook()) return;
  const asked = ++tagsAsked;
  const query = new URLSearchParams({ offset: tagsOffset, limit: TAGS_PAGE, search: $("tags-search").value.trim() });
  try {
    const response = await fetch(`/api/tags?${query}`, { cache: "no-store" });
    if (!response.ok) throw new Error(`${response.status}`);
    const page = await response.json();
    if (asked !== tagsAsked) return; // a newer question is on its way
    list($("tags"), "tag-row", page.tags, (tag) => tag.name, showTag);
    const first = page.tags.length ? page.offset + 1 : 0;
    put($("tags-range"), page.tags.length ? `${first} to ${page.offset + page.tags.length}` : "no tag has this in its name");
    $("tags-back").disabled = page.offset === 0;
    $("tags-on").disabled = !page.more;
  } catch {
    put($("tags-range"), "the gateway does not answer");
  }
}

function turn(offset) {
  tagsOffset = Math.max(0, offset);
  refreshTags();
}

export function startTags() {
  $("tags-search").addEventListener("input", () => turn(0));
  $("tags-back").addEventListener("click", () => turn(tagsOffset - TAGS_PAGE));
  $("tags-on").addEventListener("click", () => turn(tagsOffset + TAGS_PAGE));
  setInterval(() => {
    if (!document.hidden) refreshTags();
  }, TAGS_PERIOD_MS);
  refreshTags();
}
