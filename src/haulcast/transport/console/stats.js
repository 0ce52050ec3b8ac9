/**
 * What happened in the last ten minutes, counted from the board.
 *
 * The board has what is live and what ended in the last ten minutes, with all trips of these: so how many were live when,
 * every accept, and how long the first one took can be counted from it alone, from the first snapshot on. Offers cannot:
 * the board only says how many there were so far, so they are counted as this page sees that number grow.
 *
 * All series are of `BUCKETS` equal steps, the oldest first; the step under way is left out. null: not known.
 *
 * @typedef {import('./check.js').View} View
 * @typedef {{now: number | null, series: (number | null)[]}} Figure
 * @typedef {{live: Figure, offers: Figure, accepts: Figure, first: Figure, filled: Figure}} Figures
 */

export const BUCKET_MS = 10_000;
export const BUCKETS = 60;
const MINUTE_MS = 60_000;
/** Steps that a median or a share is taken of, for its series: single ones hold too few. */
const SMOOTHED = 12;

/** @param {number[]} values */
export function median(values) {
  if (!values.length) return null;
  const sorted = [...values].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export class Stats {
  /** Offers by second. @type {Map<number, number>} */ #offers = new Map();
  /** Since when this page has seen them. */ #since = Infinity;

  /** From now on offers are seen. @param {number} now the server's time */
  begin(now) {
    if (this.#since === Infinity) this.#since = now;
  }

  /** @param {number} offers @param {number} now the server's time */
  countOffers(offers, now) {
    const second = Math.floor(now / 1000);
    this.#offers.set(second, (this.#offers.get(second) ?? 0) + offers);
    for (const old of this.#offers.keys()) if (old * 1000 < now - (BUCKETS + 1) * BUCKET_MS) this.#offers.delete(old);
  }

  /** Offers a second: by step, null before this page saw any, and over the last minute, or as long as it has seen them.
   * @param {number} now @param {number} start the first step @returns {Figure} */
  #offersSeen(now, start) {
    const first = Math.ceil(this.#since / BUCKET_MS) - start;
    const series = Array.from({ length: BUCKETS }, (_, index) => (index < first ? null : 0));
    const seconds = Math.min(MINUTE_MS, now - this.#since) / 1000;
    let lately = 0;
    for (const [second, offers] of this.#offers) {
      const step = Math.floor((second * 1000) / BUCKET_MS) - start;
      if (typeof series[step] === 'number') series[step] += offers / (BUCKET_MS / 1000);
      if (second * 1000 >= now - MINUTE_MS) lately += offers;
    }
    return { now: seconds >= 3 ? lately / seconds : null, series };
  }

  /** @param {Iterable<View>} views @param {number} now the server's time @returns {Figures} */
  figures(views, now) {
    const end = Math.floor(now / BUCKET_MS); // the step under way
    const start = end - BUCKETS;
    const zeros = () => new Array(BUCKETS).fill(0);
    const [grown, accepts, ended, filled] = [zeros(), zeros(), zeros(), zeros()];
    /** @type {number[][]} */
    const firsts = Array.from({ length: BUCKETS }, () => []);
    let before = 0; // live at the start
    let live = 0;
    /** @param {number[]} steps @param {number} at @param {number} by */
    const add = (steps, at, by) => {
      const index = Math.floor(at / BUCKET_MS) - start;
      if (index >= 0 && index < BUCKETS) steps[index] += by;
      return index;
    };
    for (const view of views) {
      if (add(grown, view.created_at, 1) < 0) before += 1;
      if (view.ended_at === null) {
        live += 1;
      } else {
        if (add(grown, view.ended_at, -1) < 0) before -= 1;
        add(ended, view.ended_at, 1);
        if (view.status === 'fully_filled') add(filled, view.ended_at, 1);
      }
      let first = Infinity;
      for (const id in view.trips) {
        const at = view.trips[id].assigned_at;
        add(accepts, at, 1);
        if (at < first) first = at;
      }
      firsts[Math.floor(first / BUCKET_MS) - start]?.push(first - view.created_at);
    }
    const lives = grown.map((by) => (before += by));
    return {
      live: { now: live, series: lives },
      offers: this.#offersSeen(now, start),
      accepts: perSecond(accepts),
      first: {
        now: median(firsts.flat()),
        series: firsts.map((_, index) => median(firsts.slice(Math.max(0, index - SMOOTHED + 1), index + 1).flat())),
      },
      filled: {
        now: share(filled, ended),
        series: filled.map((_, index) => {
          const from = Math.max(0, index - SMOOTHED + 1);
          return share(filled.slice(from, index + 1), ended.slice(from, index + 1));
        }),
      },
    };
  }
}

/** @param {number[]} part @param {number[]} whole */
function share(part, whole) {
  const all = whole.reduce((sum, count) => sum + count, 0);
  return all ? part.reduce((sum, count) => sum + count, 0) / all : null;
}

/** The steps as rates, and the rate of the last minute. @param {number[]} steps @returns {Figure} */
function perSecond(steps) {
  const series = steps.map((count) => count / (BUCKET_MS / 1000));
  const last = series.slice(-MINUTE_MS / BUCKET_MS);
  return { now: last.reduce((sum, rate) => sum + rate, 0) / last.length, series };
}
