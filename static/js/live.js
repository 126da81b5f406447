// The live page: the newest book goes to every part, and each part paints at most once a frame.

import { Book } from "./book.js";
import { Control } from "./control.js";
import { Engines } from "./engines.js";
import { countText, dateText, midText, timeText, unitsText } from "./format.js";
import { Keys } from "./keys.js";
import { Ladder } from "./ladder.js";
import { DepthPlot, Trail, depthSum } from "./plot.js";
import { BookSocket } from "./socket.js";

const ANNOUNCEMENTS = 5; // that stay in the log
const STALE_MS = 2000;
const CALM_PAINT_MS = 500; // for people who asked for less motion
const STATES = {
  ok: ["book ok", "The best bid lies under the best ask"],
  locked: ["locked", "The best bid equals the best ask"],
  crossed: ["crossed", "The best bid lies above the best ask, as before an opening"],
  one_sided: ["one sided", "One side of the book is empty"],
  empty: ["empty", "There are no resting orders"],
};

const part = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const ladder = new Ladder(part("ladder"), requestPaint);
const trail = new Trail(part("trail"));
const depthPlot = new DepthPlot(part("depth-plot"));

// Of each number in the panels, how a book tells it.
const NUMBERS = {
  "event-time": ({ tsNs }) => timeText(tsNs),
  "event-date": ({ tsNs }) => dateText(tsNs),
  seq: ({ seq }) => countText(seq),
  records: ({ records }) => countText(records),
  "bid-depth": ({ bids }) => countText(depthSum(bids)),
  "ask-depth": ({ asks }) => countText(depthSum(asks)),
};

let book = null; // of the symbol that is chosen, or none yet
let bookAt = 0;
let status = null;
let connection = "connecting";
let announced = "";
let paintPlanned = false;
let paintedAt = 0;

const control = new Control(part("control"), { problem: showProblem, cleared: clearProblem, said: announce });
new Keys(document, part("keys"));
new Engines(part("engines"));

const socket = new BookSocket(
  { symbol: part("symbol").value, depth: Number(part("depth").value), push_ms: Number(part("ladder").dataset.pushMs) },
  {
    book(message) {
      if (!isOurs(message)) return;
      bookAt = performance.now();
      show(new Book(message));
    },
    status(message) {
      if (!isOurs(message)) return;
      status = message;
      showConnection();
    },
    problem: showProblem,
    signedOut: () => location.reload(), // to the log-in, or back in when only the session's key has changed
    state(state) {
      connection = state;
      status = null;
      showConnection();
    },
  },
);

part("symbol").addEventListener("change", (event) => {
  const symbol = event.target.value;
  part("final-book").search = new URLSearchParams({ symbol });
  document.title = `${symbol} live · Batonic`;
  clearProblem();
  status = null;
  show(null);
  socket.update({ symbol });
});
part("depth").addEventListener("change", (event) => socket.update({ depth: Number(event.target.value) }));
part("recentre").addEventListener("click", () => ladder.recentre());
addEventListener("resize", requestPaint);
setInterval(showConnection, 500);

// After a change of the symbol a message of the one before may still be on its way.
function isOurs(message) {
  return message.symbol === part("symbol").value;
}

function show(newest) {
  book = newest;
  for (const picture of [ladder, trail, depthPlot]) picture.show(book);
  requestPaint();
}

function requestPaint() {
  if (paintPlanned) return;
  paintPlanned = true;
  const wait = calm.matches ? paintedAt + CALM_PAINT_MS - performance.now() : 0;
  if (wait > 0) setTimeout(() => requestAnimationFrame(paint), wait);
  else requestAnimationFrame(paint);
}

function paint() {
  paintPlanned = false;
  paintedAt = performance.now();
  ladder.paint();
  trail.paint();
  depthPlot.paint();
  showQuotes();
  showConnection();
  write("trail-span", trail.span);
  write("ladder-note", book ? ladder.note || levelsText(book) : "Waiting for the first book");
}

function levelsText({ bids, asks, step, decimals }) {
  return `${bids.length} bid and ${asks.length} ask levels, tick ${unitsText(step, decimals)}`;
}

function showQuotes() {
  const { bid, ask, decimals, state } = book ?? { state: "empty" };
  showSide("bid", bid, decimals);
  showSide("ask", ask, decimals);
  write("mid", bid && ask ? midText(bid[0], ask[0], decimals) : "–");
  write("spread", bid && ask ? unitsText(ask[0] - bid[0], decimals) : "–");
  for (const [id, text] of Object.entries(NUMBERS)) write(id, book ? text(book) : "–");
  const [word, meaning] = book ? STATES[state] : ["no book", ""];
  const badge = part("book-state");
  if (badge.dataset.state === state && badge.textContent === word) return;
  badge.dataset.state = state;
  badge.title = meaning;
  badge.textContent = word;
  announce(word.startsWith("book") ? word : `Book ${word}`);
}

function showSide(side, level, decimals) {
  write(`${side}-price`, level ? unitsText(level[0], decimals) : "–");
  write(`${side}-size`, level ? `${countText(level[1])} in ${countText(level[2])} order${level[2] === 1 ? "" : "s"}` : book ? "none" : "–");
}

// Live means that books come. Without a running replay silence is no fault, unless the server knows of one. Where there
// never was a book nobody needs to renew it.
function showConnection() {
  const age = performance.now() - bookAt;
  const isStale = status?.status === "stale" && (book || status.reason !== "engine");
  const fault = isStale ? status.detail : "";
  let [state, text] = [connection, connection];
  if (connection === "open") {
    [state, text] = ["live", "live"];
    if (fault || !book || age > STALE_MS) {
      const stale = fault || control.state === "REPLAYING";
      [state, text] = stale ? ["stale", book ? `stale ${Math.floor(age / 1000)} s` : "stale"] : ["idle", "connected"];
    }
  }
  const badge = part("connection");
  if (badge.title !== fault) badge.title = fault;
  if (badge.textContent !== text) badge.textContent = text;
  if (badge.dataset.state === state) return;
  badge.dataset.state = state;
  announce(`Connection ${state === "idle" ? "open" : state}`);
}

function showProblem(text) {
  part("problem").textContent = text;
  part("problem").hidden = false;
}

function clearProblem() {
  part("problem").hidden = true;
}

function announce(text) {
  if (text === announced) return;
  announced = text;
  // A line of its own in a log: two announcements at one moment are both read, in their order.
  const line = document.createElement("p");
  line.textContent = text[0].toUpperCase() + text.slice(1);
  const log = part("announcement");
  log.append(line);
  while (log.children.length > ANNOUNCEMENTS) log.firstElementChild.remove();
}

function write(id, text) {
  const node = part(id);
  if (node.textContent !== text) node.textContent = text;
}
