// Two small pictures on canvas: where the best prices have been, and how size adds up behind them.

import { countText, unitsText } from "./format.js";

const PAST = 900; // books kept: at 20 a second, 45 s

export class Trail {
  #points = [];
  #last = null;

  constructor(canvas) {
    this.canvas = canvas;
  }

  // A book, or null: there is none to show.
  show(book) {
    if (book?.symbol !== this.#last?.symbol || book?.runId !== this.#last?.runId) this.#points = [];
    this.#last = book;
    if (!book) return;
    const ms = Number(BigInt(book.tsNs) / 1_000_000n);
    while (this.#points.at(-1)?.[0] > ms) this.#points.pop(); // the replay went back: what came after is yet to come
    this.#points.push([ms, book.bid?.[0], book.ask?.[0]]);
    if (this.#points.length > PAST) this.#points.shift();
  }

  // How much market time the picture covers.
  get span() {
    if (this.#points.length < 2) return "";
    const seconds = (this.#points.at(-1)[0] - this.#points[0][0]) / 1000;
    return seconds >= 120 ? `${Math.round(seconds / 60)} min of market time` : `${seconds.toFixed(1)} s of market time`;
  }

  paint() {
    const points = this.#points;
    const { context, width, height, colour } = prepare(this.canvas);
    if (points.length < 2) return;
    const prices = points.flatMap(([, bid, ask]) => [bid, ask]).filter((price) => price !== undefined);
    if (!prices.length) return;
    const margin = this.#last.step;
    const scale = new Scale(Math.min(...prices) - margin, Math.max(...prices) + margin, height);
    grid(context, scale, width, this.#last.decimals, colour, this.#last.step);
    const [first, last] = [points[0][0], points.at(-1)[0]];
    const x = (ms) => LEFT + ((width - LEFT - RIGHT) * (ms - first)) / Math.max(1, last - first);
    line(context, points, 1, x, scale, colour("--bid"), []);
    line(context, points, 2, x, scale, colour("--ask"), [5, 3]);
  }
}

export class DepthPlot {
  #book = null;

  constructor(canvas) {
    this.canvas = canvas;
  }

  show(book) {
    this.#book = book;
  }

  paint() {
    const book = this.#book;
    const { context, width, height, colour } = prepare(this.canvas);
    if (!book?.bid || !book.ask) return;
    const [bids, asks] = [near(summed(book.bids)), near(summed(book.asks))];
    const low = Math.min(bids.at(-1)[0], asks[0][0]);
    const high = Math.max(asks.at(-1)[0], bids[0][0]);
    const most = Math.max(bids.at(-1)[1], asks.at(-1)[1]);
    const x = (price) => LEFT + ((width - LEFT - RIGHT) * (price - low)) / Math.max(1, high - low);
    const y = (size) => height - BOTTOM - ((height - BOTTOM - TOP) * size) / most;
    context.fillStyle = colour("--muted");
    context.textAlign = "right";
    const every = roundStep(most, 4);
    for (let size = 0; size <= most; size += every) {
      rule(context, y(size), width, colour);
      context.fillText(countText(size), LEFT - 8, y(size));
    }
    context.textAlign = "center";
    for (const part of [0.02, 0.25, 0.5, 0.75, 0.98]) {
      const price = Math.round((low + (high - low) * part) / book.step) * book.step;
      context.fillText(unitsText(price, book.decimals), x(price), height - BOTTOM / 2);
    }
    area(context, bids, x, y, colour("--bid"), colour("--bid-fill"), []);
    area(context, asks, x, y, colour("--ask"), colour("--ask-fill"), [5, 3]);
  }
}

export function depthSum(levels) {
  return levels.reduce((sum, [, size]) => sum + size, 0);
}

const [LEFT, RIGHT, TOP, BOTTOM] = [64, 14, 12, 24];

class Scale {
  constructor(low, high, height) {
    Object.assign(this, { low, high, height });
  }

  y(units) {
    return TOP + ((this.height - TOP - 12) * (this.high - units)) / Math.max(1, this.high - this.low);
  }
}

// Size the bitmap to the element and to the screen's pixels, and clear it.
function prepare(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const style = getComputedStyle(canvas);
  context.font = `11px ${style.getPropertyValue("--mono")}`;
  context.textBaseline = "middle";
  return { context, width, height, colour: (name) => style.getPropertyValue(name).trim() };
}

function rule(context, y, width, colour) {
  context.strokeStyle = colour("--hairline");
  context.lineWidth = 1;
  context.setLineDash([]);
  context.beginPath();
  context.moveTo(LEFT, Math.round(y) + 0.5);
  context.lineTo(width - RIGHT, Math.round(y) + 0.5);
  context.stroke();
}

// The smallest of 1, 2, 5, 10, 20, 50 … that divides a span into at most so many parts.
function roundStep(span, most) {
  for (let power = 1; ; power *= 10) {
    const found = [1, 2, 5].find((step) => span / (step * power) <= most);
    if (found) return found * power;
  }
}

function grid(context, scale, width, decimals, colour, step) {
  const every = roundStep((scale.high - scale.low) / step, 6) * step;
  context.textAlign = "right";
  context.fillStyle = colour("--muted");
  for (let units = Math.ceil(scale.low / every) * every; units <= scale.high; units += every) {
    rule(context, scale.y(units), width, colour);
    context.fillText(unitsText(units, decimals), LEFT - 8, scale.y(units));
  }
}

// A stepped line: a price holds until the next book; a missing side is a gap.
function line(context, points, column, x, scale, stroke, dash) {
  context.strokeStyle = stroke;
  context.lineWidth = 1.5;
  context.setLineDash(dash);
  context.beginPath();
  let before;
  for (const point of points) {
    const price = point[column];
    if (price !== undefined && before !== undefined) {
      context.lineTo(x(point[0]), scale.y(before));
      context.lineTo(x(point[0]), scale.y(price));
    } else if (price !== undefined) {
      context.moveTo(x(point[0]), scale.y(price));
    }
    before = price;
  }
  context.stroke();
}

function summed(levels) {
  let sum = 0;
  return levels.map(([price, size]) => [price, (sum += size)]);
}

// The part of a side that is worth a picture: a few orders far away would squeeze the rest to a line.
function near(levels) {
  const reach = Math.abs(levels[Math.floor((levels.length - 1) * 0.75)][0] - levels[0][0]) * 2;
  return levels.filter(([price]) => Math.abs(price - levels[0][0]) <= reach || reach === 0);
}

function area(context, levels, x, y, stroke, fill, dash) {
  const path = new Path2D();
  path.moveTo(x(levels[0][0]), y(0));
  let height = 0;
  for (const [price, sum] of levels) {
    path.lineTo(x(price), y(height));
    path.lineTo(x(price), y(sum));
    height = sum;
  }
  const closed = new Path2D(path);
  closed.lineTo(x(levels.at(-1)[0]), y(0));
  context.fillStyle = fill;
  context.fill(closed);
  context.strokeStyle = stroke;
  context.lineWidth = 1.5;
  context.setLineDash(dash);
  context.stroke(path);
}
