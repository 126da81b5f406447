// Replay control: asks for what the reader wants, and shows the streamer's own word for what it does.

import { Commands } from "./commands.js";
import { paceText, valueOf } from "./paces.js";
import { Picker } from "./picker.js";
import { Readout, clockText, wordOf } from "./readout.js";
import { Transport, placeText } from "./transport.js";

const POLL_MS = 1000;
const SETTLE_MS = 300; // the status is written each 250 ms: an older one would show what was before a command
const ACTIVE = ["STARTING", "REPLAYING", "PAUSED"];
const NOWHERE = { record: 0, records: 0, fraction: 0, event: null, ts: null };

export class Control {
  #allowed;
  #commands;
  #picker;
  #transport;
  #readout;
  #status = { state: "unknown", position: NOWHERE, pace: null, clients: 0 };
  #commanded = 0; // commands answered: a status asked for before one of them is too old to show
  #timer;
  state = "unknown";

  // handlers: problem(text), cleared(), said(text) for those who listen
  constructor(root, handlers) {
    this.handlers = handlers;
    this.#allowed = root.hasAttribute("data-allowed");
    const part = (name) => root.querySelector(`[data-part=${name}]`);
    const token = root.querySelector("[name=csrfmiddlewaretoken]").value;
    this.#commands = new Commands(root.dataset.url, token, {
      answered: (verb, answer) => this.#answered(verb, answer),
      failed: (error) => this.#failed(error),
    });
    this.#picker = new Picker(
      { select: part("pace"), slower: part("slower"), faster: part("faster"), skip: part("skip"), skipText: part("skip-s") },
      { changed: (body) => this.#commands.ask("pace", body), said: handlers.said },
    );
    this.#transport = new Transport(part("transport"), this.#commands);
    const figures = ["badge", "record", "event", "time", "asked", "achieved", "lag", "clients"];
    this.#readout = new Readout(Object.fromEntries(figures.map((name) => [name, part(name)])));
    part("start-fields").disabled = !this.#allowed;
    part("start").addEventListener("submit", (event) => {
      event.preventDefault();
      const dataset = event.target.elements.dataset.value;
      if (event.submitter.value === "start") this.#commands.ask("start", { ...this.#picker.body, ...(dataset && { dataset }) });
      else this.#commands.ask("stop");
    });
    this.#poll();
  }

  async #poll() {
    const before = this.#commanded;
    if (!document.hidden && !this.#commands.busy) await this.#read();
    if (before === this.#commanded) this.#pollAfter(POLL_MS); // else the command has set a sooner one
  }

  #pollAfter(waitMs) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#poll(), waitMs);
  }

  async #read() {
    const before = this.#commanded;
    try {
      const status = await this.#commands.status();
      if (before === this.#commanded) this.#show(status);
    } catch (error) {
      if (before === this.#commanded) this.#lose(error.message);
    }
  }

  #answered(verb, answer) {
    this.#commanded += 1;
    this.handlers.cleared();
    if (answer.note) this.handlers.problem(`Nothing was changed: ${answer.note} at ${paceText(valueOf(answer.pace))}. Stop it first.`);
    this.#show(answer);
    const { position } = this.#status;
    if (verb === "seek" || verb === "step") this.handlers.said(`${placeText(position)}, ${clockText(position.ts)}`);
    this.#pollAfter(SETTLE_MS);
  }

  #failed(error) {
    this.#commanded += 1;
    this.handlers.problem(error.message);
    this.#picker.forget();
    this.#pollAfter(SETTLE_MS);
  }

  // The answer to a command has a part of its news in `upstream` only. RUNNING is how earlier versions said REPLAYING.
  #show(news) {
    const state = news.state === "RUNNING" ? "REPLAYING" : news.state;
    this.#status = { ...this.#status, ...news.upstream, ...news, state, position: { ...this.#status.position, ...news.position } };
    const active = ACTIVE.includes(state);
    this.#readout.show(this.#status);
    if (!this.#commands.busy) this.#picker.show(this.#status, active); // else another choice is on its way
    this.#transport.show(this.#status, active && this.#allowed);
    this.#change(state);
  }

  // The streamer cannot be asked.
  #lose(reason) {
    this.#readout.lose(reason);
    this.#change("unknown");
  }

  #change(state) {
    if (state === this.state) return;
    this.state = state;
    this.handlers.said(state === "unknown" ? wordOf(state) : `replay ${wordOf(state)}`);
    if (state === "FAILED" && this.#status.error) this.handlers.problem(this.#status.error);
  }
}
