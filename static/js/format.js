// Numbers and times as text. Prices are whole units of the last decimal, never floats; times come as
// nanosecond text, because a JavaScript number would lose their last digits.

const THIN = "\u202f";

export function toUnits(price, decimals) {
  return Math.round(price * 10 ** decimals);
}

export function unitsText(units, decimals) {
  const digits = String(Math.abs(units)).padStart(decimals + 1, "0");
  const whole = digits.slice(0, digits.length - decimals);
  const sign = units < 0 ? "-" : "";
  return decimals ? `${sign}${whole}.${digits.slice(-decimals)}` : sign + whole;
}

// The middle of two prices in units: one digit more when it falls between them.
export function midText(low, high, decimals) {
  const doubled = low + high;
  return doubled % 2 ? unitsText(doubled * 5, decimals + 1) : unitsText(doubled / 2, decimals);
}

export function countText(count) {
  return String(count).replace(/\B(?=(\d{3})+$)/g, THIN);
}

export function timeText(nsText) {
  const { moment, fraction } = split(nsText);
  return `${moment.toISOString().slice(11, 19)}.${fraction.replace(/(\d{3})(?=\d)/g, `$1${THIN}`)}`;
}

export function dateText(nsText) {
  return split(nsText).moment.toISOString().slice(0, 10);
}

function split(nsText) {
  const digits = nsText.padStart(10, "0");
  return { moment: new Date(Number(digits.slice(0, -9)) * 1000), fraction: digits.slice(-9) };
}
