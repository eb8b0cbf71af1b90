// Figures as people read them.

const UNKNOWN = "–";

/** 12345678, "B" → "12.3 MB"; null → "–". */
export function amount(number, unit = "") {
  if (number === null || number === undefined) return UNKNOWN;
  let size = number;
  const prefix = ["", "k", "M", "G", "T"].find((each) => Math.abs(size) < 1000 || each === "T" || ((size /= 1000), false));
  const digits = prefix === "" || Math.abs(size) >= 100 ? 0 : 1;
  return `${size.toFixed(digits)} ${prefix}${unit}`.trim();
}

export const rate = (bitsPerSecond) => amount(bitsPerSecond, "bit/s");

/** Seconds as their two largest parts: 11100 → "3 h 05 m". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return UNKNOWN;
  const whole = Math.floor(seconds);
  const parts = (large, size, small, unit) =>
    `${Math.floor(whole / size)} ${large} ${String(Math.floor((whole % size) / unit)).padStart(2, "0")} ${small}`;
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return parts("m", 60, "s", 1);
  if (whole < 86400) return parts("h", 3600, "m", 60);
  return parts("d", 86400, "h", 3600);
}

export function milliseconds(seconds) {
  return seconds === null ? UNKNOWN : `${(1000 * seconds).toFixed(1)} ms`;
}

export function percent(part, whole) {
  return part === null || !whole ? UNKNOWN : `${((100 * part) / whole).toFixed(1)} %`;
}

export const known = (text) => (text === null || text === undefined || text === "" ? UNKNOWN : String(text));

/** "[2001:db8::1]:4433" → "2001:db8::1" */
export function host(endpoint) {
  return endpoint.replace(/:\d+$/, "").replace(/^\[|\]$/g, "");
}
