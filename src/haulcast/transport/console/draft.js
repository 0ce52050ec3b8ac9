/**
 * Settings as an operator is changing them.
 *
 * 1. `base` is what the changes are made to: settings of the server, and the version that they had. What was not touched
 *    is always what the base says.
 * 2. A newer version of the server's becomes the base at once, unless there are changes here and the settings differ:
 *    then somebody else was faster. What they changed is `conflict`, and everything stays until it is agreed to.
 * 3. What comes to what the base says is no change, but the text stays as it was written: somebody may be writing on.
 * 4. While it is being saved nothing is taken, as what comes may be its own doing.
 *
 * @typedef {import('./check.js').Changes} Changes
 * @typedef {{version: number, settings: Record<string, unknown>}} Base
 */

import { differences, same } from './json.js';
import { kindOf, parsed, printed } from './labels.js';

export class Draft {
  /** @type {Base | null} */ base = null;
  /** What somebody else has changed since. @type {Changes | null} */ conflict = null;
  /** Whether it is being saved. */ saving = false;
  /** What stands in the fields that were touched. @type {Map<string, string>} */ #edits = new Map();
  /** @type {Base | null} */ #latest = null;

  /** The server says this. @param {Base} content */
  take({ version, settings }) {
    if (this.#latest && this.#latest.version === version && this.#latest.settings === settings) return;
    this.#latest = { version, settings };
    this.#compare();
  }

  /** What was seen of others' changes is all right: go on with the own ones on top of them. */
  agree() {
    if (this.base !== this.#latest) this.#rebase(this.#latest);
    this.conflict = null;
  }

  /** It has been saved, or not. @param {boolean} saved */
  saved(saved) {
    this.saving = false;
    if (saved) this.#edits.clear();
    this.#compare();
  }

  /** @param {string} name @param {string} text what stands in its field */
  edit(name, text) {
    this.#edits.set(name, text);
    if (this.conflict && !this.dirty) this.agree();
  }

  /** Have a setting be this. @param {string} name @param {unknown} value */
  set(name, value) {
    this.edit(name, printed(this.kind(name), value));
  }

  /** Give up the changes. */
  clear() {
    this.#edits.clear();
    this.agree();
  }

  /** @param {string} name */
  kind(name) {
    return kindOf(name, this.base?.settings[name]);
  }

  /** What stands in the field. @param {string} name */
  text(name) {
    return this.#edits.get(name) ?? printed(this.kind(name), this.base?.settings[name]);
  }

  /** Whether something else stands in the field than what the base says. @param {string} name */
  touched(name) {
    return this.#edits.has(name) && !this.#isBase(name);
  }

  get dirty() {
    return [...this.#edits.keys()].some((name) => this.touched(name));
  }

  /** What is different from the base, and which fields cannot be read. @returns {{changes: Changes, problems: Map<string, string>}} */
  get outcome() {
    /** @type {Changes} */
    const changes = {};
    const problems = new Map();
    for (const [name, text] of this.#edits) {
      const read = parsed(this.kind(name), text);
      if ('problem' in read) problems.set(name, read.problem);
      else if (this.touched(name)) changes[name] = { from: this.base?.settings[name], to: read.value };
    }
    return { changes, problems };
  }

  #compare() {
    if (this.#latest === null || this.saving) return;
    const theirs = this.base ? differences(this.base.settings, this.#latest.settings) : {};
    this.conflict = null;
    if (this.base && this.dirty && Object.keys(theirs).length) this.conflict = theirs;
    else this.#rebase(this.#latest);
  }

  /** @param {Base | null} base */
  #rebase(base) {
    for (const name of [...this.#edits.keys()]) {
      const stays = base !== null && same(this.base?.settings[name], base.settings[name]);
      if (!stays && !this.touched(name)) this.#edits.delete(name); // it follows
    }
    this.base = base;
    for (const name of [...this.#edits.keys()]) {
      if (base?.settings[name] === undefined) this.#edits.delete(name); // there is no such setting any more
    }
  }

  /** @param {string} name */
  #isBase(name) {
    const read = parsed(this.kind(name), this.text(name));
    return 'value' in read && same(read.value, this.base?.settings[name]);
  }
}
