// Paces as the select has them ("1000" records a second, "10x" market time, "max") and as the API has them.

import { countText } from "./format.js";

// What the API takes for a value of the select.
export function paceOf(value) {
  if (value === "max") return "max";
  return isMarketTime(value) ? { market_time: parseFloat(value) } : { records_per_s: Number(value) };
}

// The value of the select for what the API says; empty when it says nothing.
export function valueOf(pace) {
  if (!pace || pace === "max") return pace ?? "";
  return "market_time" in pace ? `${pace.market_time}x` : String(pace.records_per_s);
}

export function paceText(value) {
  if (value === "max") return "max";
  if (!isMarketTime(value)) return `${countText(value)} records/s`;
  const times = parseFloat(value);
  return `${Number.isInteger(times) ? countText(times) : times}× market time`;
}

// The next slower (-1) or faster (+1) of these values; undefined at either end. Records a second and market time
// are two ladders, because which of two such paces is the faster one changes with the market; max is the top of
// both, and from there the way down is on the ladder of `like`, where the reader was before.
export function neighbour(values, value, direction, like) {
  const marketTime = isMarketTime(value === "max" ? like : value);
  const ladder = values
    .filter((other) => other === "max" || isMarketTime(other) === marketTime)
    .sort((one, other) => speed(one) - speed(other));
  return direction > 0
    ? ladder.find((other) => speed(other) > speed(value))
    : ladder.findLast((other) => speed(other) < speed(value));
}

function isMarketTime(value) {
  return value.endsWith("x") && value !== "max";
}

function speed(value) {
  return value === "max" ? Infinity : parseFloat(value);
}
