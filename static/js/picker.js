// How fast: the pace, slower and faster, and whether idle time is passed over. It holds for the next start; while a
// replay is active it changes that one, and follows what others make of it.

import { neighbour, paceOf, paceText, valueOf } from "./paces.js";

export class Picker {
  #select;
  #skip;
  #skipText;
  #skipS;
  #like = ""; // the last pace that was not max
  #seen = ""; // what the replay had when it last said so
  #active = false;

  // handlers: changed(body) sends it, said(text)
  constructor({ select, slower, faster, skip, skipText }, handlers) {
    this.#select = select;
    this.#skip = skip;
    this.#skipText = skipText;
    this.#skipS = Number(skip.value);
    this.handlers = handlers;
    this.#keepLike();
    select.addEventListener("change", () => this.#changed());
    skip.addEventListener("change", () => this.#changed());
    slower.addEventListener("click", () => this.#move(-1));
    faster.addEventListener("click", () => this.#move(1));
  }

  // What start and pace take.
  get body() {
    return { pace: paceOf(this.#select.value), skip_idle_s: this.#skip.checked ? this.#skipS : null };
  }

  // Only a change is taken over: the reader's own choice is on its way while the replay still has the old pace.
  show({ pace, skip_idle_s: skipS }, active) {
    this.#active = active;
    if (!active) {
      this.#seen = "";
      return;
    }
    const seen = JSON.stringify([pace, skipS]);
    if (seen === this.#seen) return;
    this.#seen = seen;
    if (pace) this.#choose(valueOf(pace));
    this.#skip.checked = typeof skipS === "number";
    if (this.#skip.checked) this.#showSkip(skipS);
  }

  // Show again what the replay has: it refused what was chosen.
  forget() {
    this.#seen = "";
  }

  #move(direction) {
    const values = Array.from(this.#select.options, (option) => option.value);
    const value = neighbour(values, this.#select.value, direction, this.#like);
    if (value === undefined) {
      this.handlers.said(`${paceText(this.#select.value)} is the ${direction > 0 ? "fastest" : "slowest"} pace`);
      return;
    }
    this.#select.value = value;
    this.handlers.said(paceText(value));
    this.#changed();
  }

  #changed() {
    this.#keepLike();
    if (this.#active) this.handlers.changed(this.body);
  }

  #choose(value) {
    const options = Array.from(this.#select.options);
    if (!options.some((option) => option.value === value)) this.#select.append(new Option(paceText(value), value));
    this.#select.value = value;
    this.#keepLike();
  }

  #keepLike() {
    if (this.#select.value !== "max") this.#like = this.#select.value;
  }

  #showSkip(seconds) {
    this.#skipS = seconds;
    this.#skipText.textContent = `${seconds} s`;
  }
}
