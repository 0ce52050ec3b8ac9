/**
 * One WebSocket, from its opening to its end.
 *
 * 1. It says hello as soon as it is open. Until the reply has come it is nothing; a reply that does not come ends it.
 * 2. Every frame is checked. One that is not what it should be is told by `bad` and goes no further.
 * 3. A page cannot see the server's pings, so when nothing was heard for a while it asks for the time. No answer means
 *    that the connection is dead, whatever the browser believes, and ends it.
 * 4. `closed` is called once, and nothing after it.
 *
 * @typedef {object} Listener
 * @property {(greeting: any) => void} greeted the server has taken the hello
 * @property {(frame: any) => void} frame a checked snapshot, delta, or frame of another kind
 * @property {(why: string) => void} bad a frame was dropped
 * @property {() => void} heard something came
 * @property {(code: number, reason: string, greeted: boolean) => void} closed code 0: it was given up
 */

import { frame as checkFrame, greeting as checkGreeting } from './check.js';

const GREETED_WITHIN_MS = 8_000;
const QUIET_MS = 8_000;
const ANSWER_WITHIN_MS = 4_000;
const TICK_MS = 1_000;

export class Socket {
  /** @type {WebSocket | null} */ #socket = null;
  #greeted = false;
  #ended = false;
  #requests = 0;
  /** @type {Map<string, (reply: any) => void>} */ #waiting = new Map();
  #heardAt = performance.now();
  /** By when something has to be heard; Infinity: whenever. */ #deadline;
  /** @type {ReturnType<typeof setInterval>} */ #ticking;
  #listener;

  /** @param {URL} url @param {object} hello its data @param {Listener} listener */
  constructor(url, hello, listener) {
    this.#listener = listener;
    this.#deadline = performance.now() + GREETED_WITHIN_MS;
    this.#ticking = setInterval(() => this.#tick(), TICK_MS);
    try {
      this.#socket = new WebSocket(url.href, 'haulcast.v1.json');
    } catch {
      queueMicrotask(() => this.#end(0, 'it cannot be opened'));
      return;
    }
    this.#socket.onopen = () => this.ask('hello', hello, (reply) => this.#onHello(reply));
    this.#socket.onmessage = (event) => this.#onMessage(event.data);
    this.#socket.onclose = (event) => this.#end(event.code, event.reason);
  }

  get greeted() {
    return this.#greeted && !this.#ended;
  }

  /** Send a request. @param {string} type @param {object} data @param {(reply: any) => void} answered */
  ask(type, data, answered) {
    if (this.#ended || this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#requests += 1;
    const id = `${type}-${this.#requests}`;
    this.#waiting.set(id, answered);
    this.#socket.send(JSON.stringify({ id, type, data }));
  }

  /** Find out whether anybody is still there, within so many milliseconds. @param {number} [withinMs] */
  probe(withinMs = ANSWER_WITHIN_MS) {
    this.#deadline = Math.min(this.#deadline, performance.now() + withinMs);
    this.ask('ping', {}, () => {});
  }

  /** End it. `closed` is not called. */
  drop() {
    this.#ended = true;
    clearInterval(this.#ticking);
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close(1000);
    }
  }

  #tick() {
    const now = performance.now();
    if (now >= this.#deadline) this.#end(0, 'nothing was heard');
    else if (this.#greeted && this.#deadline === Infinity && now - this.#heardAt >= QUIET_MS) this.probe();
  }

  /** @param {unknown} text */
  #onMessage(text) {
    this.#heardAt = performance.now();
    if (this.#greeted) this.#deadline = Infinity;
    let value = null;
    let wrong = null;
    try {
      if (typeof text !== 'string') throw new Error('not text');
      value = JSON.parse(text);
      wrong = checkFrame(value);
    } catch (error) {
      wrong = `frame: ${/** @type {Error} */ (error).message}`;
    }
    if (wrong !== null) {
      this.#listener.bad(wrong);
      return;
    }
    this.#listener.heard();
    if (!('re' in value)) {
      if (this.#greeted) this.#listener.frame(value);
      return;
    }
    const answered = this.#waiting.get(value.re);
    this.#waiting.delete(value.re);
    answered?.(value);
  }

  /** @param {any} reply */
  #onHello(reply) {
    const wrong = reply.ok ? checkGreeting(reply.data, 'hello') : null;
    if (wrong !== null) this.#listener.bad(wrong);
    if (!reply.ok && reply.error?.retry === false) return; // the close code that follows says why
    if (!reply.ok || wrong !== null) {
      this.#end(0, 'the hello was not taken');
      return;
    }
    this.#greeted = true;
    this.#deadline = Infinity;
    this.#listener.greeted(reply.data);
  }

  /** @param {number} code @param {string} reason */
  #end(code, reason) {
    if (this.#ended) return;
    this.drop();
    this.#listener.closed(code, reason, this.#greeted);
  }
}
