// Replay control: start and stop, and the streamer's own word for what it does.

import { countText, timeText } from "./format.js";

const POLL_MS = 1000;
const WORDS = {
  RUNNING: "replaying", STARTING: "starting", IDLE: "idle", DONE: "done",
  STOPPED: "stopped", PAUSED: "paused", FAILED: "failed",
};

export class Control {
  #form;
  #parts;
  state = "unknown";

  // handlers: problem(text), cleared(), changed(state word)
  constructor(form, parts, handlers) {
    this.#form = form;
    this.#parts = parts;
    this.handlers = handlers;
    // Until this line runs the buttons could only reload the page.
    for (const button of form.querySelectorAll("button")) button.disabled = !form.hasAttribute("data-allowed");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#command(event.submitter);
    });
    this.#poll();
  }

  async #command(button) {
    const { dataset, rate } = this.#form.elements;
    const pace = rate.value === "max" ? { pace: "max" } : { rate: Number(rate.value) };
    const isStart = button.value === "start";
    const body = isStart ? { ...pace, ...(dataset.value && { dataset: dataset.value }) } : {};
    button.disabled = true;
    try {
      const answer = await this.#fetch(button.value, { method: "POST", body: JSON.stringify(body) });
      this.handlers.cleared();
      if (answer.note) this.handlers.problem(`Nothing was changed: ${answer.note} at ${paceText(answer.pace)}. Stop it first.`);
      await this.#read();
    } catch (error) {
      this.handlers.problem(error.message);
    } finally {
      button.disabled = false;
    }
  }

  async #poll() {
    if (!document.hidden) await this.#read().catch((error) => this.#unknown(error));
    setTimeout(() => this.#poll(), POLL_MS);
  }

  async #read() {
    this.#show(await this.#fetch("status", {}));
  }

  async #fetch(name, options) {
    const headers = { "Content-Type": "application/json", "X-CSRFToken": this.#form.elements.csrfmiddlewaretoken.value };
    let response;
    try {
      // form.dataset would be the select of that name
      response = await fetch(this.#form.getAttribute(`data-${name}-url`), { headers, ...options });
    } catch {
      throw new Error("The server does not answer.");
    }
    const answer = await response.json().catch(() => ({}));
    if (response.status === 401) throw new Error("Your session has ended: reload the page and sign in.");
    if (!response.ok) throw new Error(answer.detail ?? `The server answered ${response.status}.`);
    return answer;
  }

  #show(status) {
    const { position } = status;
    const { badge, bar, text } = this.#parts;
    const word = WORDS[status.state] ?? status.state.toLowerCase();
    badge.dataset.state = status.state;
    write(badge, status.state === "RUNNING" ? `${word} · ${countText(status.achieved_records_per_s)}/s` : word);
    badge.title = [status.dataset, status.pace && `asked for ${paceText(status.pace)}`, status.error].filter(Boolean).join(" · ");
    bar.value = position.fraction;
    const time = status.upstream.ts_event > 0 ? ` · ${timeText(status.upstream.ts_event).slice(0, 12)}` : "";
    write(text, position.records ? `${countText(position.record)} / ${countText(position.records)}${time}` : "–");
    this.#change(status.state, word);
  }

  #unknown(error) {
    const { badge } = this.#parts;
    badge.dataset.state = "unknown";
    write(badge, "replay unknown");
    badge.title = error.message;
    this.#change("unknown", "unknown");
  }

  #change(state, word) {
    if (state === this.state) return;
    this.state = state;
    this.handlers.changed(word);
  }
}

function paceText(pace) {
  return pace === "max" ? "max" : `${countText(pace?.records_per_s ?? 0)} records/s`;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
