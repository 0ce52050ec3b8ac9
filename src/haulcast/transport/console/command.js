/**
 * One command to the server at a time, until it is known what became of it.
 *
 * 1. Each command has a key of its own. When no answer comes, or one that says that the outcome is not known, the same
 *    command is sent again with the same key: it happens once, however often it arrives.
 * 2. After `TRIES` it is given up. Then it may have happened or not: what is shown is what the server says otherwise.
 * 3. Nothing here says what is in force. That the topic tells.
 *
 * @typedef {import('./check.js').Controlled} Controlled
 * @typedef {{code: string, message: string, retry: boolean, data?: Record<string, unknown> | null}} Failure
 * @typedef {'idle' | 'sending' | 'again' | 'answered' | 'refused' | 'given_up'} Phase  again: sent, and not the first time
 * @typedef {{name: string, verb: string, method: 'POST' | 'PATCH', path: string, body: object}} Order
 *   `verb`: what is being done, as in `Pausing`
 */

import { Refused } from './api.js';
import { controlled as checkControlled, refused as checkRefused } from './check.js';

export const TRIES = 6;
const AGAIN_AFTER_MS = [500, 1_000, 2_000, 4_000, 4_000];

/** A key that nobody else has. Also where the page is not from a secure place, which has no `randomUUID`. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `console-${[...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Command {
  /** @type {Phase} */ phase = 'idle';
  /** The last one that was given. @type {Order | null} */ order = null;
  /** @type {Controlled | null} */ answer = null;
  /** @type {Failure | null} */ failure = null;
  /** When it was answered or refused, by this machine's clock. */ answeredAt = 0;
  tries = 0;
  #api; #listener;

  /**
   * @param {import('./api.js').Api} api
   * @param {{touched: () => void, bad: (why: string) => void, refused: (why: string) => void, done: () => void}} listener
   *   `done`: something was carried out, or may have been
   */
  constructor(api, listener) {
    this.#api = api;
    this.#listener = listener;
  }

  get busy() {
    return this.phase === 'sending' || this.phase === 'again';
  }

  /** Say nothing more of the last one. */
  forget() {
    if (!this.busy) this.phase = 'idle';
  }

  /** Give a command. Not to be called while one is under way. @param {Order} order */
  async give(order) {
    if (this.busy) return;
    const key = newKey();
    this.order = order;
    this.answer = null;
    this.failure = null;
    this.phase = 'sending';
    for (this.tries = 1; ; this.tries += 1) {
      this.#listener.touched();
      const phase = await this.#try(order, key);
      if (phase !== null || this.tries === TRIES) {
        this.#end(phase ?? 'given_up');
        return;
      }
      this.phase = 'again';
      this.#listener.touched();
      await pause(AGAIN_AFTER_MS[this.tries - 1] * (0.75 + Math.random() / 2));
    }
  }

  /** @param {Order} order @param {string} key @returns {Promise<Phase | null>} null: what became of it is not known */
  async #try({ method, path, body }, key) {
    try {
      const { status, data } = await this.#api.send(method, path, body, key);
      const fine = status === 200 || status === 202;
      const wrong = fine ? checkControlled(data, 'answer') : checkRefused(data, 'answer');
      if (wrong !== null) {
        this.#listener.bad(wrong);
        return null;
      }
      if (fine) {
        this.answer = /** @type {Controlled} */ (data);
        return 'answered';
      }
      const { error } = /** @type {{error: Failure}} */ (data);
      if (error.retry || status >= 500) return null;
      this.failure = error;
      return 'refused';
    } catch (error) {
      if (!(error instanceof Refused)) return null;
      this.#listener.refused(error.message);
      return 'given_up';
    }
  }

  /** @param {Phase} phase */
  #end(phase) {
    this.phase = phase;
    this.answeredAt = Date.now();
    this.#listener.done();
    this.#listener.touched();
  }
}
