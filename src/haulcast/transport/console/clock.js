/**
 * The server's time, and how times are written.
 *
 * A viewer's clock may be wrong, so no time of the server is ever compared with it: every message that carries
 * `server_time` sets the difference between the two, and everything counts by that.
 */

const CLOCK_SET_MS = 5_000;
const SHARE_LEFT = 0.05;

export class Clock {
  #offset = 0;
  #known = false;

  /** Milliseconds by which the server's clock is ahead of this one. */
  get offset() {
    return Math.round(this.#offset);
  }

  /**
   * Take note of the server's time, which it just was. What came late makes the server look slow, so the largest
   * difference is nearest to the truth; it is left only bit by bit, or at once if a clock was set.
   * @param {number} serverTime
   */
  set(serverTime) {
    const fresh = serverTime - Date.now();
    const late = this.#known ? this.#offset - fresh : 0;
    this.#offset = this.#known && late > 0 && late < CLOCK_SET_MS ? this.#offset - late * SHARE_LEFT : fresh;
    this.#known = true;
  }

  /** The server's time now, in milliseconds since 1970. */
  now() {
    return Date.now() + this.#offset;
  }

  /** The viewer's wall clock at a time of the server's. @param {number} serverTime */
  local(serverTime) {
    return serverTime - this.#offset;
  }
}

const wallClock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

/** `14:03:21`, in the viewer's time zone. @param {number} at milliseconds since 1970 */
export const clockTime = (at) => wallClock.format(at);

const wallDate = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', second: '2-digit' });

/** `22 Nov, 14:03:21`, in the viewer's time zone. @param {number} at milliseconds since 1970 */
export const dateTime = (at) => wallDate.format(at);

/** What is left until something: `0:42`, `4:59`, `1 h 05`. Never below zero. @param {number} ms */
export function countdown(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${String(Math.floor((seconds % 3600) / 60)).padStart(2, '0')}`;
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}

/** How long something took or is ago: `8 s`, `3 min`, `2 h`. @param {number} ms */
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}
