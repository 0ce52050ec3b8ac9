/**
 * Keeps what one topic shows in step with the server, over whatever socket there is.
 *
 * 1. A new socket has the topic by its hello, from the version that is held, or is asked for it. A delta that does not
 *    fit leads to a snapshot, which is asked for at once, and ever more rarely if that does not help.
 * 2. `synced` says that what is held is what the server shows. `steady` allows for a moment of doubt.
 * 3. It knows nothing of what is in the topic: the model does.
 *
 * @typedef {import('./check.js').Version} Version
 * @typedef {object} Model
 * @property {Version | null} version null: what is held came by polling, or nothing is held
 * @property {boolean} known
 * @property {(content: any, version: Version | null) => void} takeSnapshot
 * @property {(from: Version, version: Version, patch: any) => import('./board.js').Outcome} takeDelta throws if it cannot be
 *
 * @typedef {object} Listener
 * @property {() => void} changed the model has changed
 * @property {() => void} synced
 * @property {() => void} asked a snapshot is asked for again
 * @property {(why: string) => void} bad a delta was dropped
 * @property {() => void} missing a snapshot was asked for, and does not come
 * @property {(why: string) => void} refused the server does not show the topic
 */

const DOUBTED_FOR_MS = 3_000;
const SYNCED_WITHIN_MS = 6_000;
const RESYNC_LONGEST_MS = 30_000;

export class Follower {
  synced = false;
  #listener;
  /** @type {import('./socket.js').Socket | null} */ #socket = null;
  #doubtedAt = -Infinity;
  #resyncWait = 0;
  #resyncAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #resyncing = undefined;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #expecting = undefined;

  /** @param {string} topic @param {Model} model @param {Listener} listener */
  constructor(topic, model, listener) {
    this.topic = topic;
    this.model = model;
    this.#listener = listener;
  }

  /** Whether it is in step, or was a moment ago and is about to be again. */
  get steady() {
    return this.synced || (this.#socket?.greeted === true && performance.now() - this.#doubtedAt < DOUBTED_FOR_MS);
  }

  /** A socket has been greeted. @param {import('./socket.js').Socket} socket @param {{topics: string[], resumed: string[]}} greeting */
  greeted(socket, { topics, resumed }) {
    this.#socket = socket;
    const goesOn = resumed.includes(this.topic);
    if (goesOn && this.model.version) this.#onSynced();
    else if (goesOn || !topics.includes(this.topic)) this.subscribe(); // goes on: a poll came in between
    else this.#expectSnapshot();
  }

  /** The socket is gone. */
  lost() {
    clearTimeout(this.#expecting);
    clearTimeout(this.#resyncing);
    this.#resyncing = undefined;
    this.#socket = null;
    this.synced = false;
  }

  /** A checked frame of the topic has come. @param {any} frame */
  take(frame) {
    if (frame.type === 'snapshot') {
      this.model.takeSnapshot(frame.data, frame.version);
      this.#onSynced();
      this.#listener.changed();
    } else if (frame.type === 'delta') {
      this.#takeDelta(frame);
    }
  }

  /** Ask for a snapshot, for what is held may be wrong. */
  resync() {
    if (this.synced) this.#doubtedAt = performance.now();
    this.synced = false;
    this.#listener.asked();
    if (this.#resyncing !== undefined) return;
    const now = performance.now();
    if (now - this.#resyncAt > RESYNC_LONGEST_MS) this.#resyncWait = 0;
    this.#resyncing = setTimeout(() => {
      this.#resyncing = undefined;
      this.#resyncAt = performance.now();
      this.subscribe();
    }, this.#resyncWait);
    this.#resyncWait = Math.min(RESYNC_LONGEST_MS, Math.max(500, this.#resyncWait * 2));
  }

  /** Ask for a snapshot now. */
  subscribe() {
    this.#expectSnapshot();
    this.#socket?.ask('subscribe', { topic: this.topic }, (reply) => {
      if (reply.ok) return;
      if (reply.error?.retry) this.resync();
      else this.#listener.refused(reply.error?.message ?? 'no reason given');
    });
  }

  /** @param {any} frame */
  #takeDelta(frame) {
    try {
      const outcome = this.model.takeDelta(frame.from, frame.version, frame.data);
      if (outcome === 'applied') this.#listener.changed();
      if (outcome === 'gap' && this.synced) this.resync();
    } catch (error) {
      this.#listener.bad(`delta: ${/** @type {Error} */ (error).message}`);
      this.resync();
    }
  }

  #onSynced() {
    clearTimeout(this.#expecting);
    this.synced = true;
    this.#listener.synced();
  }

  #expectSnapshot() {
    clearTimeout(this.#expecting);
    const socket = this.#socket;
    this.#expecting = setTimeout(() => {
      if (!this.synced && socket !== null && socket === this.#socket && socket.greeted) this.#listener.missing();
    }, SYNCED_WITHIN_MS + this.#resyncWait);
  }
}
