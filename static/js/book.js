// A book as it came over the socket, with its prices as whole units of the last decimal.

import { toUnits } from "./format.js";

export class Book {
  constructor(message) {
    const { decimals } = message;
    this.symbol = message.symbol;
    this.decimals = decimals;
    this.step = Math.max(1, toUnits(message.tick, decimals));
    this.bids = message.bids.map(([price, size, count]) => [toUnits(price, decimals), size, count]);
    this.asks = message.asks.map(([price, size, count]) => [toUnits(price, decimals), size, count]);
    this.state = message.state;
    this.tsNs = message.ts_ns;
    this.runId = message.run_id;
    this.seq = message.seq;
    this.records = message.records;
  }

  get bid() {
    return this.bids[0];
  }

  get ask() {
    return this.asks[0];
  }

  // Where the market is: between the best prices, or at the only one; undefined in an empty book.
  get middle() {
    if (this.bid && this.ask) return (this.bid[0] + this.ask[0]) / 2;
    return (this.bid ?? this.ask)?.[0];
  }
}
