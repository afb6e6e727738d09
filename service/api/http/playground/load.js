// What the server is doing now, out of its metrics. Promises: only while it is watched, one request a second.

const STEPS = 60; // seconds in the line
const PERIOD_MS = 1000;

/** Sums of what is shown, from a Prometheus text. */
export function figuresOf(text) {
  const figures = { answered: 0, refused: 0, seconds: 0, timed: 0, inFlight: 0, waitS: 0 };
  for (const line of text.split("\n")) {
    const found = /^saccade_(\w+?)(?:\{(.*)\})? ([^ ]+)/.exec(line);
    if (!found) continue;
    const [, name, labels = "", digits] = found;
    const value = Number(digits);
    if (name === "requests_total") figures[labels.includes('outcome="ok"') ? "answered" : "refused"] += value;
    else if (name === "request_duration_seconds_sum") figures.seconds += value;
    else if (name === "request_duration_seconds_count") figures.timed += value;
    else if (name === "slots_in_use") figures.inFlight += value;
    else if (name === "queue_wait_estimate_seconds") figures.waitS = Math.max(figures.waitS, value);
  }
  return figures;
}

/** Rates between two looks `seconds` apart; counters that a restart has reset count as none. */
export function loadBetween(before, after, seconds) {
  const rate = (name) => Math.max(0, after[name] - before[name]) / seconds;
  const timed = after.timed - before.timed;
  return {
    answeredPerS: rate("answered"),
    refusedPerS: rate("refused"),
    meanMs: timed > 0 ? (1000 * (after.seconds - before.seconds)) / timed : null,
    inFlight: after.inFlight,
    waitMs: 1000 * after.waitS,
  };
}

/** Points of a line, newest at the right, in a box of 100 by 30. */
export function linePoints(values) {
  const highest = Math.max(1, ...values);
  const points = values.map((value, index) => {
    const x = 100 - ((values.length - 1 - index) * 100) / (STEPS - 1);
    return `${x.toFixed(1)},${(29 - (28 * value) / highest).toFixed(1)}`;
  });
  return points.join(" ");
}

/** Calls `show(load, rates)` every second while `fold` is open and the page is seen; `read` gives the metrics. */
export function wireLoad(fold, read, show) {
  let before = null;
  let rates = [];
  let timer = null;

  async function look() {
    const now = performance.now();
    try {
      const figures = figuresOf(await read());
      if (before) {
        const load = loadBetween(before.figures, figures, (now - before.now) / 1000);
        rates = [...rates, load.answeredPerS].slice(-STEPS);
        show(load, rates);
      }
      before = { figures, now };
    } catch {
      before = null; // the page says elsewhere why the server does not answer
    }
  }

  function watch() {
    clearInterval(timer);
    before = null;
    rates = [];
    if (!fold.open || document.hidden) return;
    look();
    timer = setInterval(look, PERIOD_MS);
  }

  fold.addEventListener("toggle", watch);
  document.addEventListener("visibilitychange", watch);
}
