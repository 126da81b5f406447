// The connection to /ws: subscribes, reads books and answers, and comes back by itself.

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 10_000;

export class BookSocket {
  #socket = null;
  #wish;
  #failures = 0;

  // handlers: book(message), problem(text), state("connecting" | "open" | "reconnecting", failures)
  constructor(wish, handlers) {
    this.#wish = wish;
    this.handlers = handlers;
    this.#open("connecting");
  }

  // Change what is shown: any of symbol, depth, push_ms. Holds for later connections too.
  update(change) {
    this.#wish = { ...this.#wish, ...change };
    if (this.#socket.readyState === WebSocket.OPEN) this.#send("update", change);
  }

  #open(state) {
    this.handlers.state(state, this.#failures);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    this.#socket = socket;
    socket.addEventListener("open", () => {
      this.#failures = 0;
      this.#send("subscribe", this.#wish);
      this.handlers.state("open", 0);
    });
    socket.addEventListener("message", (event) => this.#read(JSON.parse(event.data)));
    socket.addEventListener("close", () => this.#retry());
  }

  #send(type, fields) {
    this.#socket.send(JSON.stringify({ type, ...fields }));
  }

  #read(message) {
    if (message.type === "book") this.handlers.book(message);
    else if (message.type === "error") this.handlers.problem(message.detail);
  }

  // Back off with jitter: a thousand pages that lost the same server must not return in the same instant.
  #retry() {
    this.#failures += 1;
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#failures);
    this.handlers.state("reconnecting", this.#failures);
    setTimeout(() => this.#open("reconnecting"), longest * (0.5 + Math.random() / 2));
  }
}
