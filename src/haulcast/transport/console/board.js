/**
 * The tenant's board, as the server told it.
 *
 * 1. `broadcasts` holds nothing but what came in checked snapshots and deltas. Nothing is derived ahead of the server:
 *    a broadcast whose time is up stays where it is until the server says what became of it.
 * 2. A delta is applied whole or not at all: what it touches is copied, changed, checked, and only then taken.
 * 3. `version` is null when what is held came by polling, which has none; then no delta fits.
 * 4. Whoever shows something asks `takeChanged` which broadcasts have changed since it asked last.
 *
 * @typedef {import('./check.js').View} View
 * @typedef {import('./check.js').Version} Version
 * @typedef {{set?: Record<string, unknown> | null, del?: string[] | null}} Patch
 * @typedef {'applied' | 'old' | 'gap'} Outcome
 */

import { view as checkView } from './check.js';
import { keysOf, put } from './json.js';

/** @param {Version} one @param {Version} other */
export const compare = (one, other) => one[0] - other[0] || one[1] - other[1];

export class Board {
  constructor() {
    /** @type {Map<string, View>} */
    this.broadcasts = new Map();
    /** @type {Version | null} */
    this.version = null;
    /** Whether anything was ever told. */
    this.known = false;
    /** @type {Set<string>} */
    this.changed = new Set();
    /** Called with how many more transporters were offered something than before. @type {(offers: number) => void} */
    this.onOffers = () => {};
  }

  /**
   * Replace everything.
   * @param {{broadcasts: Record<string, View>}} content @param {Version | null} version
   */
  takeSnapshot({ broadcasts: views }, version) {
    const before = this.broadcasts;
    this.broadcasts = new Map(Object.entries(views));
    for (const id of before.keys()) if (!this.broadcasts.has(id)) this.changed.add(id);
    let offers = 0;
    for (const [id, view] of this.broadcasts) {
      this.changed.add(id);
      offers += Math.max(0, view.notified - (before.get(id)?.notified ?? 0));
    }
    if (this.known && offers) this.onOffers(offers);
    this.version = version;
    this.known = true;
  }

  /**
   * Change what a delta says. Throws, and changes nothing, if the result would not be a board.
   * @param {Version} from @param {Version} version @param {Patch} patch
   * @returns {Outcome}
   */
  takeDelta(from, version, patch) {
    if (!this.version || compare(from, this.version) !== 0) {
      return this.version && compare(version, this.version) <= 0 ? 'old' : 'gap';
    }
    const staged = this.#stage(patch);
    let offers = 0;
    for (const [id, view] of staged) {
      this.changed.add(id);
      if (view === null) {
        this.broadcasts.delete(id);
      } else {
        offers += Math.max(0, view.notified - (this.broadcasts.get(id)?.notified ?? 0));
        this.broadcasts.set(id, view);
      }
    }
    this.version = version;
    if (offers) this.onOffers(offers);
    return 'applied';
  }

  /** Which broadcasts have changed, come or gone since this was asked last. */
  takeChanged() {
    const changed = this.changed;
    this.changed = new Set();
    return changed;
  }

  /** Forget everything. */
  clear() {
    for (const id of this.broadcasts.keys()) this.changed.add(id);
    this.broadcasts = new Map();
    this.version = null;
    this.known = false;
  }

  /** @param {Patch} patch @returns {Map<string, View | null>} what becomes of whom; null: it goes */
  #stage(patch) {
    /** @type {Map<string, any>} */
    const staged = new Map();
    for (const [pointer, value] of Object.entries(patch.set ?? {})) this.#change(staged, keysOf(pointer), value);
    for (const pointer of patch.del ?? []) this.#change(staged, keysOf(pointer), undefined);
    for (const [id, view] of staged) {
      const wrong = view === null ? null : checkView(view, id);
      if (wrong) throw new Error(wrong);
    }
    return staged;
  }

  /** @param {Map<string, any>} staged @param {string[]} keys @param {unknown} value */
  #change(staged, keys, value) {
    const [root, id, ...inner] = keys;
    if (root !== 'broadcasts') return; // of a later version of the protocol
    if (id === undefined) {
      for (const held of this.broadcasts.keys()) staged.set(held, null);
      for (const [key, view] of Object.entries(/** @type {object} */ (value ?? {}))) staged.set(key, view);
      return;
    }
    if (inner.length === 0) {
      staged.set(id, value === undefined ? null : value);
      return;
    }
    let view = staged.get(id);
    if (!view) {
      const held = this.broadcasts.get(id);
      if (!held) throw new Error(`${id}: there is no such broadcast`);
      view = structuredClone(held);
      staged.set(id, view);
    }
    put(view, inner, value);
  }
}
