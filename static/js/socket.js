// The connection to /ws: subscribes, reads books and answers, tells the server what it has read, comes back by itself.

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 10_000;
const CHANNELS = ["book", "status"];
const ACKS = 20; // books that may be on their way: a page that is too slow gets fewer, and always the newest
const SIGNED_OUT = 4001;

export class BookSocket {
  #socket = null;
  #wish;
  #failures = 0;
  #isIn = false;
  #unread = 0;

  // handlers: book(message), status(message), problem(text), signedOut(),
  // state("connecting" | "open" | "reconnecting", failures)
  constructor(wish, handlers) {
    this.#wish = wish;
    this.handlers = handlers;
    this.#open("connecting");
  }

  // Change what is shown: any of symbol, depth, push_ms. Holds for later connections too.
  update(change) {
    this.#wish = { ...this.#wish, ...change };
    if (this.#isIn) this.#send("update", change);
  }

  #open(state) {
    this.handlers.state(state, this.#failures);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    this.#socket = socket;
    socket.addEventListener("message", (event) => this.#read(JSON.parse(event.data)));
    socket.addEventListener("close", (event) => (event.code === SIGNED_OUT ? this.handlers.signedOut() : this.#retry()));
  }

  #send(type, fields) {
    this.#socket.send(JSON.stringify({ type, ...fields }));
  }

  #read(message) {
    if (message.type === "book") {
      this.handlers.book(message);
      this.#acknowledge(message);
    } else if (message.type === "status") this.handlers.status(message);
    else if (message.type === "error") this.handlers.problem(message.detail);
    else if (message.type === "hello") this.#greeted();
  }

  // Only now is this client let in: one that is one too many is accepted too, and closed.
  #greeted() {
    this.#isIn = true;
    this.#failures = this.#unread = 0;
    this.#send("subscribe", { ...this.#wish, channels: CHANNELS, acks: ACKS });
    this.handlers.state("open", 0);
  }

  #acknowledge({ seq, symbol }) {
    this.#unread += 1;
    if (this.#unread < ACKS / 2) return;
    this.#unread = 0;
    this.#send("ack", { seq, symbol });
  }

  // Back off with jitter: a thousand pages that lost the same server must not return in the same instant.
  #retry() {
    this.#isIn = false;
    this.#failures += 1;
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#failures);
    this.handlers.state("reconnecting", this.#failures);
    setTimeout(() => this.#open("reconnecting"), longest * (0.5 + Math.random() / 2));
  }
}
