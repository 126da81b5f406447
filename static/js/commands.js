// The door to the control API: one command after the other, each under a key of its own, so that asking again when
// no answer came does it once.

const ANSWER_WITHIN_MS = 15_000;
const MOST_WAITING = 8;
const ATTEMPTS = 2;

// What a command that waits becomes when the same verb comes behind it; null where both count. So a key that is
// held down adds to one command, and a slider leaves only its last place.
const MERGED = {
  step: (one, other) => (one.unit === other.unit && one.by !== -other.by ? { ...one, by: one.by + other.by } : null),
  seek: (one, other) => ("fraction" in one && "fraction" in other ? other : null),
  pace: (_, other) => other,
};
const ONCE = ["start", "stop"]; // a double click means one

export class Commands {
  #url;
  #token;
  #queue = []; // the first one is on its way

  // handlers: answered(verb, answer), failed(Error)
  constructor(url, token, handlers) {
    this.#url = url;
    this.#token = token;
    this.handlers = handlers;
  }

  get busy() {
    return this.#queue.length > 0;
  }

  // Send a command when those before it are answered. verb may be a function that chooses it then.
  // The promise is kept, with nothing, when a handler was told the outcome.
  ask(verb, body = {}) {
    const last = this.#queue.at(-1);
    if (last?.verb === verb) {
      if (ONCE.includes(verb)) return last.done;
      const together = this.#queue.length > 1 ? MERGED[verb]?.(last.body, body) : null;
      if (together) {
        last.body = together;
        return last.done;
      }
    }
    if (this.#queue.length > MOST_WAITING) {
      this.handlers.failed(new Error(`${MOST_WAITING} commands wait for an answer already.`));
      return Promise.resolve();
    }
    const command = { verb, body };
    this.#queue.push(command);
    command.done = Promise.resolve(last?.done).then(() => this.#carryOut(command));
    return command.done;
  }

  status() {
    return this.#fetch("status", {});
  }

  async #carryOut(command) {
    const verb = typeof command.verb === "function" ? command.verb() : command.verb;
    let tell;
    try {
      const answer = await this.#post(verb, command.body);
      tell = () => this.handlers.answered(verb, answer);
    } catch (error) {
      tell = () => this.handlers.failed(error);
    }
    this.#queue.shift(); // first: what is told may be shown only when nothing else is on its way
    tell();
  }

  async #post(verb, body) {
    const options = { method: "POST", body: JSON.stringify(body), headers: { "Idempotency-Key": newKey() } };
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#fetch(verb, options);
      } catch (error) {
        if (!(error instanceof Unanswered) || attempt === ATTEMPTS) throw error;
      }
    }
  }

  async #fetch(name, { headers, ...options }) {
    const usual = { "Content-Type": "application/json", "X-CSRFToken": this.#token };
    let response;
    try {
      const signal = AbortSignal.timeout(ANSWER_WITHIN_MS);
      response = await fetch(this.#url + name, { headers: { ...usual, ...headers }, signal, ...options });
    } catch {
      throw new Unanswered("The server does not answer.");
    }
    const answer = await response.json().catch(() => ({}));
    if (response.status === 401) throw new Error("Your session has ended: reload the page and sign in.");
    if (!response.ok) throw new Error(answer.detail ?? `The server answered ${response.status}.`);
    return answer;
  }
}

class Unanswered extends Error {}

// randomUUID exists only where the page came over https or from this machine.
function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
