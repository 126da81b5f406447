// The price ladder: one row a tick, bids left, asks right. The rows are built once; painting writes only
// what differs. The price axis stands still while somebody reads it (pointer or focus on it), and otherwise
// moves when the market leaves the middle of the window.

import { countText, unitsText } from "./format.js";

const ROWS = 25;
const HALF = (ROWS - 1) / 2;
const CALM = 0.55; // the part of the window in which the market may wander

export class Ladder {
  #rows;
  #centre = null;
  #book = null;
  #fullBar = 1;

  // changed() asks for a repaint
  constructor(root, changed) {
    this.root = root;
    this.changed = changed;
    root.append(header());
    this.#rows = Array.from({ length: ROWS }, () => new Rung(root));
    root.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("pointerleave", changed);
  }

  // A book, or null: there is none to show.
  show(book) {
    if (book?.symbol !== this.#book?.symbol) this.#centre = null;
    this.#book = book;
  }

  recentre() {
    this.#centre = null;
    this.changed();
  }

  // Says where the market is when it is outside the window; empty otherwise.
  get note() {
    const middle = this.#book?.middle;
    if (middle === undefined || this.#centre === null) return "";
    const distance = (middle - this.#centre) / this.#book.step;
    if (Math.abs(distance) <= HALF) return "";
    return distance > 0 ? "▲ The market is above: C recentres" : "▼ The market is below: C recentres";
  }

  paint() {
    const book = this.#book;
    if (!book) {
      for (const row of this.#rows) row.paint("", undefined, undefined, 1, false, false);
      return;
    }
    this.#follow(book);
    const bids = new Map(book.bids.map((level) => [level[0], level]));
    const asks = new Map(book.asks.map((level) => [level[0], level]));
    const top = this.#centre + HALF * book.step;
    const prices = this.#rows.map((_, row) => top - row * book.step);
    const sizes = prices.flatMap((price) => [bids.get(price)?.[1] ?? 0, asks.get(price)?.[1] ?? 0]);
    this.#fullBar = roundUp(Math.max(1, ...sizes));
    prices.forEach((price, row) => {
      this.#rows[row].paint(
        unitsText(price, book.decimals),
        bids.get(price),
        asks.get(price),
        this.#fullBar,
        price === book.bid?.[0],
        price === book.ask?.[0],
      );
    });
  }

  #follow(book) {
    const middle = book.middle;
    if (middle === undefined) {
      this.#centre ??= 0;
      return;
    }
    const far = this.#centre !== null && Math.abs(middle - this.#centre) > HALF * CALM * book.step;
    if (this.#centre === null || (far && !this.#isRead())) {
      this.#centre = Math.round(middle / book.step) * book.step;
    }
  }

  #isRead() {
    return this.root.matches(":hover, :focus-visible");
  }

  #move(ticks) {
    if (this.#centre === null) return;
    this.#centre += ticks * this.#book.step;
    this.changed();
  }

  #wheel(event) {
    event.preventDefault();
    this.#move(event.deltaY > 0 ? -3 : 3);
  }

  #key(event) {
    const ticks = { ArrowUp: 1, ArrowDown: -1, PageUp: HALF, PageDown: -HALF }[event.key];
    if (ticks === undefined) return;
    event.preventDefault();
    this.#move(ticks);
  }
}

class Rung {
  #written = new Map();

  constructor(root) {
    this.row = element("div", "rung", "row");
    this.bidCount = this.#cell("bids count");
    this.bidSize = this.#cell("bids size", true);
    this.price = this.#cell("price");
    this.askSize = this.#cell("asks size", true);
    this.askCount = this.#cell("asks count");
    root.append(this.row);
  }

  paint(price, bid, ask, fullBar, isBestBid, isBestAsk) {
    this.#write(this.price, price);
    this.#side(this.bidSize, this.bidCount, bid, fullBar);
    this.#side(this.askSize, this.askCount, ask, fullBar);
    this.#mark("best-bid", isBestBid);
    this.#mark("best-ask", isBestAsk);
  }

  #side(size, count, level, fullBar) {
    this.#write(size, level ? countText(level[1]) : "");
    this.#write(count, level ? countText(level[2]) : "");
    const scale = level ? Math.min(1, level[1] / fullBar).toFixed(3) : "0";
    if (this.#written.get(size.bar) === scale) return;
    this.#written.set(size.bar, scale);
    size.bar.style.transform = `scaleX(${scale})`;
  }

  #write(cell, text) {
    if (cell.text.data !== text) cell.text.data = text;
  }

  #mark(name, on) {
    if (this.#written.get(name) === on) return;
    this.#written.set(name, on);
    this.row.classList.toggle(name, on);
  }

  #cell(className, withBar = false) {
    const cell = element("span", className, "cell");
    const text = document.createTextNode("");
    const bar = withBar ? document.createElement("i") : null;
    if (bar) cell.append(bar);
    const holder = document.createElement("em");
    holder.append(text);
    cell.append(holder);
    this.row.append(cell);
    return { text, bar };
  }
}

function header() {
  const row = element("div", "rung head", "row");
  const names = [["orders", "bids count"], ["bid size", "bids"], ["price", "price"], ["ask size", "asks"], ["orders", "asks count"]];
  for (const [name, className] of names) {
    const cell = element("span", className, "columnheader");
    cell.textContent = name;
    row.append(cell);
  }
  return row;
}

function element(tag, className, role) {
  const node = document.createElement(tag);
  node.className = className;
  node.setAttribute("role", role);
  return node;
}

// The next of 1, 2, 5, 10, 20, 50 …: bars keep their scale while the largest size wobbles.
function roundUp(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return [1, 2, 5, 10].map((step) => step * power).find((full) => full >= size);
}
