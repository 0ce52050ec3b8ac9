/**
 * Keeps the board in step with the server, by whatever way there is.
 *
 * 1. The way is a WebSocket: hello with the version held, then a snapshot, or the deltas since. A delta that does not
 *    fit, and any frame that is not what it should be, is dropped, and a snapshot is asked for.
 * 2. When a socket ends, its close code says whether and when to come back (`closing.js`).
 * 3. After two tries in a row without a reply to hello, or if no socket may be opened any more, the board is polled every
 *    5 s, while sockets are still tried now and then. A socket that has the board ends the polling.
 * 4. After a sleep of the machine, or when the network comes back, nothing is believed: a fresh snapshot is asked for.
 * 5. `state` is what the viewer is told: `live`, `polling`, `connecting` (a matter of seconds), or `stale`.
 *
 * @typedef {'live' | 'polling' | 'connecting' | 'stale'} State
 * @typedef {{frames: number, dropped: number, resyncs: number, connects: number, lastBad: string}} Counts
 * @typedef {{told: () => void, changed: () => void, refused: (why: string) => void}} Listener
 */

import { address } from './api.js';
import { ruleOf } from './closing.js';
import { Polling } from './polling.js';
import { Socket } from './socket.js';

const TRIES_BEFORE_POLLING = 2;
const CONNECTING_FOR_MS = 8_000;
const DOUBTED_FOR_MS = 3_000;
const SYNCED_WITHIN_MS = 6_000;
const STEADY_MS = 5_000;
const TICK_MS = 1_000;
const ASLEEP_MS = 10_000;
const AWAKE_WITHIN_MS = 4_000;
const RESYNC_LONGEST_MS = 30_000;

export class Link {
  /** @type {State} */ state = 'connecting';
  /** Why no socket is tried any more; empty if they are. */ why = '';
  /** When what is shown was last known to be so, by this machine's clock; 0: never. */ trueAt = 0;
  /** @type {Counts} */ counts = { frames: 0, dropped: 0, resyncs: 0, connects: 0, lastBad: '' };
  #session; #board; #clock; #api; #listener; #topic; #polling;
  /** @type {Socket | null} */ #socket = null;
  #synced = false;
  #greetedAt = 0;
  #doubtedAt = -Infinity;
  #failures = 0;
  #lostAt = performance.now();
  #resyncWait = 0;
  #resyncAt = 0;
  #over = false;
  #tickAt = Date.now();
  #hiddenAt = 0;
  /** @type {Record<string, ReturnType<typeof setTimeout> | undefined>} */ #timers = {};
  #stop = new AbortController();

  /**
   * @param {import('./session.js').Session} session @param {import('./board.js').Board} board
   * @param {import('./clock.js').Clock} clock @param {import('./api.js').Api} api @param {Listener} listener
   */
  constructor(session, board, clock, api, listener) {
    this.#session = session;
    this.#board = board;
    this.#clock = clock;
    this.#api = api;
    this.#listener = listener;
    this.#topic = `board:${session.tenant}`;
    this.#polling = this.#poller();
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
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#polling.stop();
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
      this.#subscribe();
    } else if (!this.why && !this.#socket) {
      this.#connect();
    }
    if (this.#polling.running) this.#polling.ask();
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
    clearTimeout(this.#timers.connect);
    if (this.#over) return;
    const url = address('v1/ws');
    url.protocol = url.protocol.replace('http', 'ws');
    const { version } = this.#board;
    const hello = { token: this.#session.token, ...(version && { resume: { [this.#topic]: version } }) };
    this.counts.connects += 1;
    this.#synced = false;
    this.#socket = new Socket(url, hello, {
      greeted: (greeting) => this.#onGreeting(greeting),
      frame: (frame) => this.#onFrame(frame),
      bad: (why) => this.#onBad(why),
      heard: () => this.#synced && this.#onTrue(),
      closed: (code, reason, greeted) => this.#onClosed(code, reason, greeted),
    });
  }

  /** @param {any} greeting */
  #onGreeting(greeting) {
    if (greeting.role !== 'operator') {
      this.#refuse(`This token is for the role “${greeting.role}”. The console needs an operator’s.`);
      return;
    }
    this.#clock.set(greeting.server_time);
    this.#greetedAt = performance.now();
    const resumed = greeting.resumed.includes(this.#topic);
    if (resumed && this.#board.version) this.#onSynced();
    else if (resumed || !greeting.topics.includes(this.#topic)) this.#subscribe(); // resumed: a poll came in between
    else this.#expectSnapshot();
    this.#tell();
  }

  /** @param {any} frame */
  #onFrame(frame) {
    if (frame.topic !== this.#topic) return;
    this.counts.frames += 1;
    this.#clock.set(frame.server_time);
    if (frame.type === 'snapshot') {
      this.#board.takeSnapshot(frame.data.broadcasts, frame.version);
      this.#onSynced();
      this.#listener.changed();
    } else if (frame.type === 'delta') {
      this.#onDelta(frame);
    }
  }

  /** @param {any} frame */
  #onDelta(frame) {
    try {
      const outcome = this.#board.takeDelta(frame.from, frame.version, frame.data);
      if (outcome === 'applied') this.#listener.changed();
      if (outcome === 'gap' && this.#synced) this.#resync();
    } catch (error) {
      this.#onBad(`delta: ${/** @type {Error} */ (error).message}`);
    }
  }

  #onTrue() {
    this.trueAt = Date.now();
  }

  /** @param {string} why */
  #onBad(why) {
    this.counts.dropped += 1;
    this.counts.lastBad = why;
    this.#resync();
    this.#listener.told();
  }

  #onSynced() {
    clearTimeout(this.#timers.synced);
    this.#synced = true;
    this.#onTrue();
    this.#polling.stop();
    this.#tell();
  }

  /** Ask for a snapshot, at once if that has not just been done, and ever more rarely if it does not help. */
  #resync() {
    if (this.#synced) this.#doubtedAt = performance.now();
    this.#synced = false;
    this.counts.resyncs += 1;
    if (this.#timers.resync !== undefined) return;
    const now = performance.now();
    if (now - this.#resyncAt > RESYNC_LONGEST_MS) this.#resyncWait = 0;
    this.#timers.resync = setTimeout(() => {
      this.#timers.resync = undefined;
      this.#resyncAt = performance.now();
      this.#subscribe();
    }, this.#resyncWait);
    this.#resyncWait = Math.min(RESYNC_LONGEST_MS, Math.max(500, this.#resyncWait * 2));
  }

  #subscribe() {
    this.#expectSnapshot();
    this.#socket?.ask('subscribe', { topic: this.#topic }, (reply) => {
      if (reply.ok) return;
      if (reply.error?.retry) this.#resync();
      else this.#refuse(`The server does not show this board: ${reply.error?.message ?? 'no reason given'}`);
    });
  }

  /** A socket on which the board does not come is of no use. */
  #expectSnapshot() {
    clearTimeout(this.#timers.synced);
    const socket = this.#socket;
    this.#timers.synced = setTimeout(() => {
      if (this.#synced || socket !== this.#socket || !socket?.greeted) return;
      socket.drop();
      this.#onClosed(0, 'the board did not come', false);
    }, SYNCED_WITHIN_MS + this.#resyncWait);
  }

  /** @param {number} code @param {string} reason @param {boolean} greeted */
  #onClosed(code, reason, greeted) {
    clearTimeout(this.#timers.synced);
    clearTimeout(this.#timers.resync);
    this.#timers.resync = undefined;
    this.#socket = null;
    if (this.#synced) this.#lostAt = performance.now();
    this.#synced = false;
    const steady = greeted && performance.now() - this.#greetedAt >= STEADY_MS;
    this.#failures = steady ? 0 : this.#failures + 1;
    const rule = ruleOf(code, reason, this.#failures);
    if (rule.then === 'sign_in') {
      this.#refuse(rule.why);
      return;
    }
    if (rule.then === 'stay_away') this.why = rule.why;
    else this.#timers.connect = setTimeout(() => this.#connect(), rule.afterMs);
    if (this.why || this.#failures >= TRIES_BEFORE_POLLING) this.#polling.start();
    this.#tell();
  }

  // --- By polling ---

  #poller() {
    return new Polling(this.#api, this.#topic, {
      board: (shown) => {
        this.counts.frames += 1;
        this.#clock.set(shown.server_time);
        this.#board.takeSnapshot(shown.data.broadcasts, null);
        this.#onTrue();
        this.#listener.changed();
      },
      heard: () => this.#onTrue(),
      bad: (why) => {
        this.counts.dropped += 1;
        this.counts.lastBad = why;
      },
      refused: (why) => this.#refuse(why),
      told: (before) => {
        if (this.#polling.fine && !before && !this.why && !this.#socket) this.#connect(); // the server is back
        this.#tell();
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
    if (this.#synced || (this.#socket?.greeted && now - this.#doubtedAt < DOUBTED_FOR_MS)) return 'live';
    if (this.#polling.running && !this.#polling.fine) return 'stale';
    if (this.#polling.running) return this.#board.known && !this.#board.version ? 'polling' : 'connecting';
    return now - this.#lostAt < CONNECTING_FOR_MS ? 'connecting' : 'stale';
  }
}
