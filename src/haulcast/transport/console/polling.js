/**
 * A topic without a socket: asked for every few seconds, with the tag of what is held, so that nothing is sent twice.
 *
 * 1. It runs from `start` to `stop`. An answer that comes after `stop`, or after that of a later question, counts for nothing.
 * 2. `fine` says whether the last answer was the topic, or that nothing has changed. Until there is one it is presumed.
 * 3. After a failure it asks again after a time with chance in it, so that not all consoles come back at once.
 *
 * @typedef {object} Listener
 * @property {(shown: {server_time: number, data: any}) => void} shown a checked answer
 * @property {() => void} heard the server has answered that nothing has changed
 * @property {(why: string) => void} bad an answer was dropped
 * @property {(why: string) => void} refused the token is not good for this
 * @property {(before: boolean) => void} told a question has ended; `before`: whether the one before it went well
 */

import { Refused } from './api.js';
import { polled as checkPolled } from './check.js';
import { backoff } from './closing.js';

const EVERY_MS = 5_000;

export class Polling {
  running = false;
  fine = true;
  /** @type {string | null} */ #tag = null;
  #turn = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer = undefined;
  #api; #path; #check; #listener;

  /**
   * @param {import('./api.js').Api} api @param {string} topic @param {import('./shape.js').Check} check of what it shows
   * @param {Listener} listener
   */
  constructor(api, topic, check, listener) {
    this.#api = api;
    this.#check = checkPolled(check);
    this.#path = `v1/topics/${encodeURIComponent(topic)}`;
    this.#listener = listener;
  }

  start() {
    if (this.running) return;
    this.running = true;
    this.fine = true;
    this.ask();
  }

  stop() {
    this.running = false;
    this.#turn += 1;
    this.#tag = null;
    clearTimeout(this.#timer);
  }

  /** Ask now, not when it is due. */
  async ask() {
    clearTimeout(this.#timer);
    this.#turn += 1;
    const turn = this.#turn;
    let answer = null;
    try {
      answer = await this.#api.get(this.#path, this.#tag);
    } catch (error) {
      if (turn === this.#turn && error instanceof Refused) {
        this.#listener.refused(error.message);
        return;
      }
    }
    if (turn !== this.#turn) return;
    const before = this.fine;
    this.fine = answer !== null && this.#take(answer);
    if (!this.running) return; // it was refused
    this.#timer = setTimeout(() => this.ask(), this.fine ? EVERY_MS : backoff(2, EVERY_MS / 2));
    this.#listener.told(before);
  }

  /** @param {import('./api.js').Answer} answer @returns {boolean} whether what is held is what the server shows */
  #take(answer) {
    if (answer.status === 304) {
      this.#listener.heard();
      return true;
    }
    if (answer.status === 404) {
      this.#listener.refused('This token may not see the board. The console needs an operator’s or an admin’s.');
      return false;
    }
    if (answer.status !== 200) return false;
    const wrong = this.#check(answer.data, 'poll');
    this.#tag = wrong === null ? answer.tag : null;
    if (wrong === null) this.#listener.shown(/** @type {any} */ (answer.data));
    else this.#listener.bad(wrong);
    return wrong === null;
  }
}
