/**
 * Keeps the board, and what is in force, in step with the server, by whatever way there is.
 *
 * 1. The way is a WebSocket: hello with the versions held, then snapshots, or the deltas since (`follower.js`). A frame
 *    that is not what it should be is dropped, and snapshots are asked for.
 * 2. When a socket ends, its close code says whether and when to come back (`closing.js`).
 * 3. After two tries in a row without a reply to hello, or if no socket may be opened any more, both are polled every
 *    5 s, while sockets are still tried now and then. A socket that has the board ends the polling.
 * 4. After a sleep of the machine, or when the network comes back, nothing is believed: a fresh snapshot is asked for.
 * 5. `state` is what the viewer is told: `live`, `polling`, `connecting` (a matter of seconds), or `stale`. The
 *    board decides; `controlled` says whether what is in force is known as well as the board is.
 *
 * @typedef {'live' | 'polling' | 'connecting' | 'stale'} State
 * @typedef {{frames: number, dropped: number, resyncs: number, connects: number, lastBad: string}} Counts
 * @typedef {{told: () => void, changed: () => void, refused: (why: string) => void}} Listener
 */

import { address } from './api.js';
import { board as checkBoard, control as checkControl } from './check.js';
import { ruleOf } from './closing.js';
import { Follower } from './follower.js';
import { Polling } from './polling.js';
import { Socket } from './socket.js';

const TRIES_BEFORE_POLLING = 2;
const CONNECTING_FOR_MS = 8_000;
const STEADY_MS = 5_000;
const TICK_MS = 1_000;
const ASLEEP_MS = 10_000;
const AWAKE_WITHIN_MS = 4_000;
/** Who may see the board. */
export const ROLES = ['operator', 'admin'];

export class Link {
  /** @type {State} */ state = 'connecting';
  /** Why no socket is tried any more; empty if they are. */ why = '';
  /** When what is shown was last known to be so, by this machine's clock; 0: never. */ trueAt = 0;
  /** @type {Counts} */ counts = { frames: 0, dropped: 0, resyncs: 0, connects: 0, lastBad: '' };
  #session; #clock; #api; #listener; #board; #control; #polling; #controlPolling;
  /** @type {Socket | null} */ #socket = null;
  #greetedAt = 0;
  #failures = 0;
  #lostAt = performance.now();
  #over = false;
  #tickAt = Date.now();
  #hiddenAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #connecting = undefined;
  #stop = new AbortController();

  /**
   * @param {import('./session.js').Session} session @param {import('./board.js').Board} board
   * @param {import('./control.js').Control} control @param {import('./clock.js').Clock} clock
   * @param {import('./api.js').Api} api @param {Listener} listener
   */
  constructor(session, board, control, clock, api, listener) {
    this.#session = session;
    this.#clock = clock;
    this.#api = api;
    this.#listener = listener;
    this.#board = this.#follower(`board:${session.tenant}`, board, {
      synced: () => this.#onSynced(),
      missing: () => this.#giveUp('the board did not come'),
      refused: (why) => this.#refuse(`The server does not show this board: ${why}`),
    });
    this.#control = this.#follower(`control:${session.tenant}`, control, {
      synced: () => this.#controlPolling.stop(),
      missing: () => this.#control.resync(),
      refused: () => {}, // by a server that knows of no such topic; `controlled` stays false
    });
    this.#polling = this.#poller(this.#board, checkBoard, {
      refused: (why) => this.#refuse(why),
      told: (before) => {
        if (this.#polling.fine && !before && !this.why && !this.#socket) this.#connect(); // the server is back
        this.#tell();
      },
    });
    this.#controlPolling = this.#poller(this.#control, checkControl, {
      refused: () => this.#controlPolling.stop(),
      told: () => this.#listener.told(),
    });
  }

  /** Whether what is in force is known, and can be changed. */
  get controlled() {
    if (!this.#control.model.known) return false;
    if (this.state === 'live') return this.#control.steady;
    return this.state === 'polling' && this.#controlPolling.running && this.#controlPolling.fine;
  }

  /** Something was done that changes what is in force: whoever polls asks now. */
  expectControl() {
    if (this.#controlPolling.running) this.#controlPolling.ask();
  }

  start() {
    const { signal } = this.#stop;
    document.addEventListener('visibilitychange', () => this.#onVisibility(), { signal });
    addEventListener('online', () => this.wake(), { signal });
    addEventListener('offline', () => this.#socket?.probe(AWAKE_WITHIN_MS), { signal });
    addEventListener('pageshow', (event) => event.persisted && this.wake(), { signal });
    const ticking = setInterval(() => this.#tick(), TICK_MS);
    signal.addEventListener('abort', () => clearInterval(ticking));
    this.#connect();
  }

  /** End it for good. */
  stop() {
    this.#over = true;
    this.#stop.abort();
    clearTimeout(this.#connecting);
    for (const polling of [this.#polling, this.#controlPolling]) polling.stop();
    for (const follower of [this.#board, this.#control]) follower.lost();
    this.#socket?.drop();
  }

  /** Who looked elsewhere for a moment has missed nothing. */
  #onVisibility() {
    if (document.hidden) this.#hiddenAt = Date.now();
    else if (Date.now() - this.#hiddenAt > ASLEEP_MS) this.wake();
    else this.#socket?.probe(AWAKE_WITHIN_MS);
  }

  /** Take nothing for granted: somebody may have slept. */
  wake() {
    if (this.#over) return;
    if (this.#socket?.greeted) {
      this.#socket.probe(AWAKE_WITHIN_MS);
      for (const follower of [this.#board, this.#control]) follower.subscribe();
    } else if (!this.why && !this.#socket) {
      this.#connect();
    }
    for (const polling of [this.#polling, this.#controlPolling]) if (polling.running) polling.ask();
  }

  /** Try sockets again although the server said not to: the viewer wants to. */
  insist() {
    this.why = '';
    this.#failures = 0;
    this.#socket?.drop();
    this.#connect();
    this.#tell();
  }

  // --- By socket ---

  #connect() {
    clearTimeout(this.#connecting);
    if (this.#over) return;
    const url = address('v1/ws');
    url.protocol = url.protocol.replace('http', 'ws');
    const held = [this.#board, this.#control].filter((follower) => follower.model.version);
    const resume = Object.fromEntries(held.map((follower) => [follower.topic, follower.model.version]));
    const hello = { token: this.#session.token, ...(held.length && { resume }) };
    this.counts.connects += 1;
    this.#socket = new Socket(url, hello, {
      greeted: (greeting) => this.#onGreeting(greeting),
      frame: (frame) => this.#onFrame(frame),
      bad: (why) => this.#onBad(why),
      heard: () => this.#board.synced && this.#onTrue(),
      closed: (code, reason, greeted) => this.#onClosed(code, reason, greeted),
    });
  }

  /** @param {any} greeting */
  #onGreeting(greeting) {
    if (!ROLES.includes(greeting.role)) {
      this.#refuse(`This token is for the role “${greeting.role}”. The console needs an operator’s or an admin’s.`);
      return;
    }
    this.#clock.set(greeting.server_time);
    this.#greetedAt = performance.now();
    const socket = /** @type {Socket} */ (this.#socket);
    for (const follower of [this.#board, this.#control]) follower.greeted(socket, greeting);
    this.#tell();
  }

  /** @param {any} frame */
  #onFrame(frame) {
    const follower = [this.#board, this.#control].find(({ topic }) => topic === frame.topic);
    if (!follower) return;
    this.counts.frames += 1;
    this.#clock.set(frame.server_time);
    follower.take(frame);
  }

  #onTrue() {
    this.trueAt = Date.now();
  }

  /** @param {string} why */
  #onBad(why) {
    this.#drop(why);
    for (const follower of [this.#board, this.#control]) follower.resync();
  }

  /** Take note of what was dropped. @param {string} why */
  #drop(why) {
    this.counts.dropped += 1;
    this.counts.lastBad = why;
    this.#listener.told();
  }

  #onSynced() {
    this.#onTrue();
    this.#polling.stop();
    this.#tell();
  }

  /** A socket on which the board does not come is of no use. @param {string} why */
  #giveUp(why) {
    this.#socket?.drop();
    this.#onClosed(0, why, false);
  }

  /**
   * @param {string} topic @param {import('./follower.js').Model} model
   * @param {{synced: () => void, missing: () => void, refused: (why: string) => void}} listener
   */
  #follower(topic, model, listener) {
    return new Follower(topic, model, {
      ...listener,
      changed: () => this.#listener.changed(),
      asked: () => {
        this.counts.resyncs += 1;
      },
      bad: (why) => this.#drop(why),
    });
  }

  /** @param {number} code @param {string} reason @param {boolean} greeted */
  #onClosed(code, reason, greeted) {
    if (this.#board.synced) this.#lostAt = performance.now();
    for (const follower of [this.#board, this.#control]) follower.lost();
    this.#socket = null;
    const steady = greeted && performance.now() - this.#greetedAt >= STEADY_MS;
    this.#failures = steady ? 0 : this.#failures + 1;
    const rule = ruleOf(code, reason, this.#failures);
    if (rule.then === 'sign_in') {
      this.#refuse(rule.why);
      return;
    }
    if (rule.then === 'stay_away') this.why = rule.why;
    else this.#connecting = setTimeout(() => this.#connect(), rule.afterMs);
    if (this.why || this.#failures >= TRIES_BEFORE_POLLING) {
      for (const polling of [this.#polling, this.#controlPolling]) polling.start();
    }
    this.#tell();
  }

  // --- By polling ---

  /**
   * @param {Follower} follower @param {import('./shape.js').Check} check
   * @param {{refused: (why: string) => void, told: (before: boolean) => void}} listener
   */
  #poller(follower, check, listener) {
    const isBoard = follower === this.#board;
    return new Polling(this.#api, follower.topic, check, {
      ...listener,
      shown: ({ server_time, data }) => {
        this.counts.frames += 1;
        this.#clock.set(server_time);
        follower.model.takeSnapshot(data, null);
        if (isBoard) this.#onTrue();
        this.#listener.changed();
      },
      heard: () => isBoard && this.#onTrue(),
      bad: (why) => {
        this.counts.dropped += 1;
        this.counts.lastBad = why;
      },
    });
  }

  // --- Telling ---

  /** @param {string} why */
  #refuse(why) {
    if (this.#over) return;
    this.stop();
    this.#listener.refused(why);
  }

  #tick() {
    const now = Date.now();
    const slept = now - this.#tickAt > ASLEEP_MS;
    this.#tickAt = now;
    if (slept && !document.hidden) this.wake();
    this.#tell();
  }

  #tell() {
    const state = this.#stateNow();
    if (state === this.state) return;
    if (this.state === 'live') this.#lostAt = performance.now();
    this.state = state;
    this.#listener.told();
  }

  /** @returns {State} */
  #stateNow() {
    const now = performance.now();
    if (this.#board.steady) return 'live';
    if (this.#polling.running && !this.#polling.fine) return 'stale';
    if (this.#polling.running) return this.#board.model.known && !this.#board.model.version ? 'polling' : 'connecting';
    return now - this.#lostAt < CONNECTING_FOR_MS ? 'connecting' : 'stale';
  }
}
