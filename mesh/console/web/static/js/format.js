// Formatting of numbers, times and names.

export function ms(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1) return `${Math.round(value * 1000)}\u00a0µs`;
  if (value < 10) return `${value.toFixed(1)}\u00a0ms`;
  if (value < 1000) return `${Math.round(value)}\u00a0ms`;
  if (value < 60_000) return `${(value / 1000).toFixed(2)}\u00a0s`;
  return `${(value / 60_000).toFixed(1)}\u00a0min`;
}

export function rate(value) {
  if (!value) return "0";
  if (value < 1 / 600) return `${(value * 3600).toFixed(1)}/h`;
  if (value < 1) return `${(value * 60).toFixed(value < 1 / 6 ? 1 : 0)}/min`;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)}/s`;
}

export function percent(value, digits) {
  if (value === null || value === undefined) return "–";
  const hundred = value * 100;
  if (digits === undefined) digits = hundred === 0 || hundred >= 10 ? 0 : hundred < 1 ? 2 : 1;
  return `${hundred.toFixed(digits)}\u00a0%`;
}

/** Returns a number with its noun in the singular or plural. */
export const counted = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

export const count = (value) => new Intl.NumberFormat("en").format(Math.round(value ?? 0));

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (value >= 1000 && unit < 3) { value /= 1000; unit += 1; }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)}\u00a0${units[unit]}`;
}

const IN_MS = { s: 1000, ms: 1, us: 0.001, ns: 1e-6 };

/** Returns a function that formats values of a metric in its unit (UCUM), derived from the name if absent. */
export function inUnit(unit, name) {
  const known = unit || (/_seconds$/.test(name) ? "s" : /_bytes$/.test(name) ? "By" : "");
  const plain = (value) => new Intl.NumberFormat("en", { maximumSignificantDigits: 4 }).format(value);
  const word = known.replace(/[{}]/g, "");
  return (value) => {
    if (value === null || value === undefined) return "–";
    if (known in IN_MS) return value < 0 ? `−${ms(-value * IN_MS[known])}` : ms(value * IN_MS[known]);
    if (known === "By") return bytes(value);
    return word && word !== "1" ? `${plain(value)}\u00a0${word}` : plain(value);
  };
}

export const clock = (text, milliseconds = true) => {
  const at = new Date(text);
  const time = at.toLocaleTimeString("en-GB");
  return milliseconds ? `${time}.${String(at.getMilliseconds()).padStart(3, "0")}` : time;
};

/** Formats the duration since a time. */
export function span(text) {
  const seconds = Math.max(0, (Date.now() - new Date(text)) / 1000);
  if (seconds < 90) return `${Math.round(seconds)}\u00a0s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)}\u00a0min`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)}\u00a0h`;
  return `${Math.round(seconds / 86_400)}\u00a0days`;
}

export const ago = (text) => (text ? `${span(text)} ago` : "never");

/** Like `ago`, for a time with minute precision. */
export function minutesAgo(text) {
  const minutes = Math.floor((Date.now() - new Date(text)) / 60_000);
  if (!text || minutes >= 60) return ago(text);
  return minutes < 1 ? "just now" : `${minutes} min ago`;
}

export function days(value) {
  if (value === null || value === undefined) return "–";
  return value >= 2 ? `${Math.floor(value)}\u00a0days` : `${Math.max(0, value * 24).toFixed(value * 24 < 10 ? 1 : 0)}\u00a0h`;
}

/** Returns the colour of a service: the same on every page, readable in light and dark mode. */
export function hue(name) {
  const base = name.replace(/[-_.](envoy|proxy|sidecar)$/, "").replace(/-(\d+|canary)$/, "");
  const known = { gateway: 205, survey: 152, auth: 275, health: 28, browser: 220 };
  let value = known[base];
  if (value === undefined) {
    value = 0;
    for (const letter of base) value = (value * 31 + letter.charCodeAt(0)) % 360;
  }
  return `hsl(${value} 55% 50%)`;
}
