// The engines' own word: whether they are well, and what waits on its way to the stores. Several are shown as one.

import { countText } from "./format.js";

const POLL_MS = 2000;
const FULL = 0.5; // from half of its memory on a queue moves to the disk: worth a word before

export class Engines {
  #url;
  #parts;

  constructor(root) {
    this.#url = root.dataset.url;
    this.#parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((node) => [node.dataset.part, node]));
    this.#poll();
  }

  async #poll() {
    if (!document.hidden) await this.#read();
    setTimeout(() => this.#poll(), POLL_MS);
  }

  async #read() {
    try {
      const answer = await fetch(this.#url, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(`${answer.status}`);
      this.#show(await answer.json());
    } catch {
      this.#say("unknown", "engine unknown", "");
    }
  }

  #show(engines) {
    const sum = (field) => engines.reduce((all, engine) => all + engine[field], 0);
    const ill = engines.filter((engine) => !engine.ok);
    const gone = engines.length === 0 || engines.every((engine) => engine.state === "gone");
    const names = engines.length === 1 ? "engine" : `${engines.length} engines`;
    if (gone) this.#say("crossed", "no engine", "No engine has given a sign of life; is `manage.py runengine` running?");
    else if (ill.length) this.#say("stale", `${names} degraded`, ill.map((engine) => `${engine.name}: ${engine.reason}`).join(" · "));
    else this.#say("ok", `${names} ok`, "");
    const full = Math.max(0, ...engines.map((engine) => engine.queue_bytes / (engine.queue_capacity_bytes || 1)));
    this.#write("stored", countText(sum("snapshots_stored")));
    this.#write("queued", countText(sum("queue_items")) + (full > FULL ? `, ${Math.round(full * 100)} % full` : ""));
    this.#write("disk", countText(sum("on_disk")));
    this.#write("behind", countText(sum("lag_records")));
  }

  #say(state, text, reasons) {
    this.#parts.badge.dataset.state = state;
    this.#write("badge", text);
    this.#write("reasons", reasons);
    this.#parts.reasons.hidden = !reasons;
  }

  #write(name, text) {
    const node = this.#parts[name];
    if (node.textContent !== text) node.textContent = text;
  }
}
