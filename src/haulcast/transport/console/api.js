/**
 * REST calls.
 *
 * Addresses are relative to the page, so that a proxy may serve all of it below a prefix. A call that takes too long is
 * given up. What comes back is JSON, or the call has failed; what is in it the caller checks. What changes something
 * carries a key: as long as that is the same, it happens once, however often it is sent.
 *
 * @typedef {{status: number, data: unknown, tag: string | null}} Answer
 */

const WITHIN_MS = 8000;
/** Whoever is commanded waits 5 s for all nodes, and longer for the journal if that has to be. */
const DONE_WITHIN_MS = 10_000;

/** The server does not, or no longer, accept the token. `message` is for the viewer. */
export class Refused extends Error {}

/** @param {string} path such as `v1/nodes` */
export const address = (path) => new URL(`../${path}`, document.baseURI);

export class Api {
  #token;

  /** @param {string} token */
  constructor(token) {
    this.#token = token;
  }

  /**
   * Ask for something. Throws `Refused` for a token that is not good, and other errors if there is no answer.
   * @param {string} path @param {string | null} [tag] of what is held: the answer may be 304 then, without data
   * @returns {Promise<Answer>}
   */
  async get(path, tag = null) {
    const headers = new Headers({ Authorization: `Bearer ${this.#token}` });
    if (tag !== null) headers.set('If-None-Match', tag);
    const response = await this.#fetch(path, { headers }, WITHIN_MS);
    if (response.status === 304) return { status: 304, data: null, tag };
    return this.#read(response);
  }

  /**
   * Change something. Throws as `get` does; then it may have happened or not, and the same with the same key finds out.
   * @param {'POST' | 'PATCH'} method @param {string} path @param {object} body @param {string} key
   * @returns {Promise<Answer>}
   */
  async send(method, path, body, key) {
    const headers = { Authorization: `Bearer ${this.#token}`, 'Content-Type': 'application/json', 'Idempotency-Key': key };
    return this.#read(await this.#fetch(path, { method, headers, body: JSON.stringify(body) }, DONE_WITHIN_MS));
  }

  /** @param {string} path @param {RequestInit} how @param {number} withinMs */
  #fetch(path, how, withinMs) {
    return fetch(address(path), {
      ...how,
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
      signal: AbortSignal.timeout(withinMs),
    });
  }

  /** @param {Response} response @returns {Promise<Answer>} */
  async #read(response) {
    const data = await response.json();
    if (response.status === 401) throw new Refused('The server does not accept this token: it has expired, or is not valid here.');
    if (response.status === 403 && data?.error?.code === 'TENANT_NOT_FOUND') {
      throw new Refused('The tenant that the token names does not exist at this server.');
    }
    return { status: response.status, data, tag: response.headers.get('ETag') };
  }
}
