/**
 * The selected broadcast in full, with its timeline: asked for when it is selected, and again when the board shows that
 * it has changed, once a second at most.
 *
 * Until the answer is there nothing is shown of a timeline; the board's view of the broadcast is always the one that counts.
 *
 * @typedef {{seq: number, at: number, event: string, wave?: number, notified?: number, radius_m?: number | null,
 *   left_out?: {transporter_id: string, vehicle_id?: string, vehicle_type?: string, distance_m?: number, reason: string}[],
 *   reason?: string, status?: string, trip_id?: string, transporter_id?: string, vehicle_id?: string,
 *   vehicle_type?: string, driver_id?: string}} TimelineEntry
 */

import { Refused } from './api.js';
import { detail as checkDetail } from './check.js';

const SPACING_MS = 1_000;
const AGAIN_MS = 5_000;

export class Inquiry {
  /** @type {string | null} */ id = null;
  /** @type {import('./check.js').View | null} */ view = null;
  /** @type {TimelineEntry[] | null} */ timeline = null;
  /** Why there is no timeline. */ problem = '';
  #askedAt = -Infinity;
  #turn = 0;
  #asking = false;
  /** Whether the broadcast has changed since the question under way was asked. */ #missed = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer = undefined;

  /**
   * @param {import('./api.js').Api} api
   * @param {{touched: () => void, bad: (why: string) => void, refused: (why: string) => void}} listener
   */
  constructor(api, listener) {
    this.api = api;
    this.listener = listener;
  }

  /** @param {string | null} id */
  select(id) {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#turn += 1;
    this.#asking = false;
    this.#missed = false;
    this.#askedAt = -Infinity;
    this.id = id;
    this.view = null;
    this.timeline = null;
    this.problem = '';
    if (id !== null) this.again();
  }

  /** The broadcast has changed. */
  again() {
    if (this.id === null) return;
    this.#missed = this.#asking;
    if (this.#asking || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => this.#ask(), Math.max(0, this.#askedAt + SPACING_MS - performance.now()));
  }

  async #ask() {
    const turn = this.#turn;
    this.#askedAt = performance.now();
    this.#asking = true;
    let problem = '';
    try {
      const answer = await this.api.get(`v1/broadcasts/${encodeURIComponent(/** @type {string} */ (this.id))}`);
      if (turn !== this.#turn) return;
      const wrong = answer.status === 200 ? checkDetail(answer.data, 'broadcast') : null;
      if (wrong !== null) this.listener.bad(wrong);
      if (answer.status === 404) problem = 'The server does not know this broadcast.';
      else if (answer.status !== 200) problem = `The timeline could not be read (${answer.status}).`;
      else if (wrong !== null) problem = 'The timeline could not be read.';
      else {
        const told = /** @type {any} */ (answer.data);
        this.view = told;
        this.timeline = told.timeline;
      }
    } catch (error) {
      if (turn !== this.#turn) return;
      if (error instanceof Refused) {
        this.listener.refused(error.message);
        return;
      }
      problem = 'The timeline cannot be reached.';
    }
    this.problem = problem;
    this.#asking = false;
    this.#timer = problem ? setTimeout(() => this.#ask(), AGAIN_MS) : undefined;
    if (this.#missed) this.again();
    this.listener.touched();
  }
}
