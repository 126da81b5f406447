// Where in the recording: pause, step, seek, jump, go to. Each control asks for one command; nothing here is believed
// to have happened before the status says so.

import { countText } from "./format.js";

const MOMENT = /^(?:(\d{4}-\d\d-\d\d)[Tt ])?(\d\d:\d\d(?::\d\d(?:\.\d+)?)?)([Zz]|[+-]\d\d:?\d\d)?$/;

export class Transport {
  #fields;
  #pause;
  #bar;
  #unit;
  #commands;
  #paused = false;
  #day = "";

  // root: a fieldset with one [aria-pressed], range, select and form, and any number of [data-step] and [data-next]
  constructor(root, commands) {
    this.#fields = root;
    this.#pause = root.querySelector("[aria-pressed]");
    this.#bar = root.querySelector("input[type=range]");
    this.#unit = root.querySelector("select");
    this.#commands = commands;
    this.#pause.addEventListener("click", () => commands.ask(this.#toggle));
    this.#bar.addEventListener("change", () => commands.ask("seek", { fraction: Number(this.#bar.value) }));
    for (const button of root.querySelectorAll("[data-step]")) {
      button.addEventListener("click", () => commands.ask("step", { unit: this.#unit.value, by: Number(button.dataset.step) }));
    }
    for (const button of root.querySelectorAll("[data-next]")) {
      button.addEventListener("click", () => commands.ask("seek", { next: button.dataset.next }));
    }
    const form = root.querySelector("form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      commands.ask("seek", placeOf(form.elements.place.value, this.#day));
    });
  }

  show({ state, position }, usable) {
    this.#fields.disabled = !usable;
    this.#paused = state === "PAUSED";
    this.#pause.setAttribute("aria-pressed", String(this.#paused));
    this.#day = position.ts?.slice(0, 10) ?? "";
    // A bar that is being dragged, or whose place is on its way, is the reader's.
    if (this.#bar.matches(":active") || this.#commands.busy) return;
    this.#bar.value = position.fraction;
    this.#bar.setAttribute("aria-valuetext", placeText(position));
  }

  // One function for every press, chosen when its turn comes: two presses are pause and resume.
  #toggle = () => (this.#paused ? "resume" : "pause");
}

export function placeText({ record, records, fraction }) {
  return records ? `record ${countText(record)} of ${countText(records)}, ${(fraction * 100).toFixed(1)} %` : "nowhere";
}

// What the reader typed as the API has it: a record number however its digits are grouped, or a time, where a missing
// day is the day of the replay and a missing zone is UTC, as everywhere on this site.
export function placeOf(typed, day) {
  const text = typed.trim();
  const digits = text.replace(/[\s_,]/g, "");
  if (/^\d{1,15}$/.test(digits)) return { record: Number(digits) };
  if (/^\d+$/.test(digits)) return { ts: digits }; // nanoseconds since 1970
  const [, date = day, time, zone = "Z"] = text.match(MOMENT) ?? [];
  if (!time || !date) return { ts: text }; // the server says what it expects
  return { ts: `${date}T${time.length === 5 ? `${time}:00` : time}${zone}` };
}
