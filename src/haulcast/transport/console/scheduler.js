/**
 * When the page is drawn: at most five times in any second, whatever comes.
 *
 * 1. Data only says that something is to be drawn (`soon`). It is drawn in the next animation frame, `SPACING_MS` after
 *    the last time at the earliest, and together with everything that came meanwhile.
 * 2. What the viewer does (`now`) is drawn in the next animation frame. It counts like any other: data leaves room for
 *    it, one of five always and more while the viewer is busy.
 * 3. `beat` has the page drawn now and then although nothing came, for countdowns.
 */

export const PER_SECOND = 5;
const SPACING_MS = 250;
const BUSY_SPACING_MS = 500;
const WINDOW_MS = 1000;

export class Scheduler {
  /** @param {() => void} render draws everything that has changed; must not throw */
  constructor(render) {
    this.renders = 0;
    this.#render = render;
  }

  /** @type {() => void} */ #render;
  /** When it was drawn within the last second. @type {number[]} */ #recent = [];
  #touchedAt = -Infinity;
  #due = Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer = undefined;
  #framed = false;

  /** Something has changed. */
  soon() {
    const now = performance.now();
    const spacing = now - this.#touchedAt < WINDOW_MS / 2 ? BUSY_SPACING_MS : SPACING_MS;
    const last = this.#recent.at(-1) ?? -Infinity;
    this.#at(Math.max(last + spacing, this.#free(now, PER_SECOND - 1)));
  }

  /** The viewer has done something. */
  now() {
    const now = performance.now();
    this.#touchedAt = now;
    this.#at(this.#free(now, PER_SECOND));
  }

  /** Have it drawn at least so often. @param {number} everyMs */
  beat(everyMs) {
    setInterval(() => this.soon(), everyMs);
  }

  /** When fewer than `limit` have been drawn in the second before. @param {number} now @param {number} limit */
  #free(now, limit) {
    this.#recent = this.#recent.filter((at) => now - at < WINDOW_MS);
    return this.#recent.length < limit ? now : this.#recent[this.#recent.length - limit] + WINDOW_MS;
  }

  /** @param {number} due */
  #at(due) {
    if (this.#framed || due >= this.#due) return;
    this.#due = due;
    clearTimeout(this.#timer);
    const wait = due - performance.now();
    if (wait > 0) this.#timer = setTimeout(() => this.#frame(), wait);
    else this.#frame();
  }

  #frame() {
    this.#framed = true;
    requestAnimationFrame(() => {
      this.#framed = false;
      this.#due = Infinity;
      const now = performance.now();
      if (this.#free(now, PER_SECOND) > now) {
        this.now();
        return;
      }
      this.#recent.push(now);
      this.renders += 1;
      document.documentElement.dataset.renders = String(this.renders);
      this.#render();
    });
  }
}
