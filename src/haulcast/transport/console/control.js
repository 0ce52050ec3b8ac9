/**
 * What is in force for the tenant, and which node has it, as the topic `control:{tenant}` told it.
 *
 * 1. `content` holds nothing but what came in checked snapshots and deltas: that something is paused is known when the
 *    server says so, and not when a button was pressed.
 * 2. Every command raises the tenant's version by one, and every live node says which one it has. `progress` counts
 *    those that have the newest; while some have not, a command is on its way, whoever gave it.
 * 3. `change` is what is known of the last command that was seen to come: what differs, with what was under way before
 *    it; whether all have followed at some time (who is behind after that has joined later); and which nodes are not
 *    listed any more without having followed.
 *
 * @typedef {import('./check.js').ControlView} ControlView
 * @typedef {import('./check.js').Version} Version
 * @typedef {{version: number, changes: import('./check.js').Changes, announced: boolean, complete: boolean,
 *   gone: number[]}} Change
 * @typedef {{followed: number, nodes: number, behind: number[]}} Progress
 */

import { compare } from './board.js';
import { control as checkControl } from './check.js';
import { differences, keysOf, put } from './json.js';

export class Control {
  /** @type {ControlView | null} */ content = null;
  /** Of the topic. @type {Version | null} */ version = null;
  /** Whether anything was ever told. */ known = false;
  /** @type {Change | null} */ change = null;

  /** Replace everything. @param {ControlView} content @param {Version | null} version */
  takeSnapshot(content, version) {
    this.#put(content);
    this.version = version;
    this.known = true;
  }

  /**
   * Change what a delta says. Throws, and changes nothing, if the result would not be what such a topic shows.
   * @param {Version} from @param {Version} version @param {import('./board.js').Patch} patch
   * @returns {import('./board.js').Outcome}
   */
  takeDelta(from, version, patch) {
    if (!this.version || compare(from, this.version) !== 0) {
      return this.version && compare(version, this.version) <= 0 ? 'old' : 'gap';
    }
    const staged = { root: structuredClone(this.content) };
    for (const [pointer, value] of Object.entries(patch.set ?? {})) put(staged, ['root', ...keysOf(pointer)], value);
    for (const pointer of patch.del ?? []) put(staged, ['root', ...keysOf(pointer)], undefined);
    const wrong = checkControl(staged.root, 'control');
    if (wrong !== null) throw new Error(wrong);
    this.#put(/** @type {ControlView} */ (staged.root));
    this.version = version;
    return 'applied';
  }

  /** How many of the nodes that live have the newest version. @returns {Progress} */
  get progress() {
    const nodes = Object.values(this.content?.nodes ?? {});
    const behind = nodes.filter((each) => each.version < /** @type {ControlView} */ (this.content).version);
    const numbers = behind.map((each) => each.node).sort((one, other) => one - other);
    return { followed: nodes.length - behind.length, nodes: nodes.length, behind: numbers };
  }

  /** @param {ControlView} after */
  #put(after) {
    const before = this.content;
    this.content = after;
    if (before === null) return;
    if (after.version < before.version) {
      this.change = null; // another node tells now, and has not followed yet
      return;
    }
    if (after.version > before.version) {
      const paused = differences({ paused: before.paused }, { paused: after.paused });
      const announced = Object.keys(after.announcements).some((id) => !Object.hasOwn(before.announcements, id));
      const under = this.change && !this.change.complete ? this.change : null; // with what nobody has seen the end of
      const changes = { ...under?.changes, ...paused, ...differences(before.settings, after.settings) };
      this.change = { version: after.version, changes, announced, complete: false, gone: under?.gone ?? [] };
    } else {
      this.#note(before, after);
    }
    if (this.change && !this.progress.behind.length) this.change.complete = true;
  }

  /** Take note of who has gone. @param {ControlView} before @param {ControlView} after */
  #note(before, after) {
    if (this.change === null || this.change.complete) return;
    const lost = Object.entries(before.nodes).filter(([key]) => !Object.hasOwn(after.nodes, key));
    for (const [, { node, version }] of lost) if (version < before.version) this.change.gone.push(node);
  }
}
