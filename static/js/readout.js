// What the streamer says of itself, in words and figures.

import { countText } from "./format.js";
import { paceText, valueOf } from "./paces.js";

const WORDS = {
  REPLAYING: "replaying", STARTING: "starting", IDLE: "idle", DONE: "done",
  STOPPED: "stopped", PAUSED: "paused", FAILED: "failed", unknown: "replay unknown",
};
const THIN = "\u202f";

export class Readout {
  #parts;

  // parts: state, record, event, time, asked, achieved, lag, clients
  constructor(parts) {
    this.#parts = parts;
  }

  show(status) {
    const { state, position, pace } = status;
    const { badge } = this.#parts;
    badge.dataset.state = state;
    badge.title = [status.dataset, status.error].filter(Boolean).join(" · ");
    write(badge, wordOf(state));
    write(this.#parts.record, position.records ? `${countText(position.record)} / ${countText(position.records)}` : "–");
    write(this.#parts.event, numberText(position.event));
    write(this.#parts.time, position.ts ? `${position.ts.slice(0, 10)} ${clockText(position.ts)}` : "–");
    write(this.#parts.asked, pace ? paceText(valueOf(pace)) : "–");
    write(this.#parts.achieved, pace ? `${countText(status.achieved_records_per_s)}/s` : "–");
    write(this.#parts.lag, numberText(status.lag_records));
    write(this.#parts.clients, countText(status.clients));
  }

  // The streamer cannot be asked: what it last said stays, marked.
  lose(reason) {
    const { badge } = this.#parts;
    badge.dataset.state = "unknown";
    badge.title = reason;
    write(badge, wordOf("unknown"));
  }
}

export function wordOf(state) {
  return WORDS[state] ?? state.toLowerCase();
}

// 2025-09-24T19:30:00.001385399Z as 19:30:00.001 385 399
export function clockText(iso) {
  return iso ? iso.slice(11, -1).replace(/(\.\d{3}|\d{3})(?=\d)/g, `$1${THIN}`) : "–";
}

function numberText(count) {
  return typeof count === "number" ? countText(count) : "–";
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
