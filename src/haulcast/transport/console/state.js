/**
 * The line that says whether the tenant is running, in which mode, and at which version; and the commands beside it.
 *
 * 1. What it says is what the topic says. While a command is on its way, by whoever it was given, it says what is being
 *    done and how many nodes have followed; `Paused` only when all that live have, or when the answer has told
 *    which have not.
 * 2. A button that was pressed shows nothing but that: it can be pressed again when the server has answered, and the
 *    topic has come to the version of the answer.
 * 3. Without a connection, and until the state is known, nothing can be pressed, and it is said why.
 */

import { Command } from './command.js';
import { confirmed } from './confirm.js';
import { arrange, byId, el, setAttribute, setHidden, setText } from './dom.js';
import { words } from './format.js';
import { nodesOf, notFollowed, sentence, trouble } from './outcome.js';

const PAUSE = {
  title: 'Pause dispatch?',
  text: 'No new broadcasts are taken and no further waves are sent, on all nodes, until it is resumed. Offers that are open can still be accepted.',
  yes: 'Pause',
};

/** What is being done, by what is seen of it. @param {import('./control.js').Change} change */
export function verbOf(change) {
  const { paused, dispatch_mode: mode } = change.changes;
  if (paused) return paused.to ? 'Pausing' : 'Resuming';
  if (mode && Object.keys(change.changes).length === 1) return `Switching to ${words(String(mode.to))}`;
  return change.announced ? 'Announcing' : 'Applying settings';
}

export class StateLine {
  #control; #command;
  /** The mode that was chosen and not yet switched to. @type {string | null} */ #chosen = null;
  /** What was in force when the command was given. */ #before = 0;
  #enabled = false;
  #pause = byId('control-pause');
  #reload = byId('control-reload');
  #choice = byId('control-mode-choice');
  #switch = byId('control-switch');

  /**
   * @param {import('./control.js').Control} control @param {import('./api.js').Api} api
   * @param {ConstructorParameters<typeof Command>[1]} listener
   */
  constructor(control, api, listener) {
    this.#control = control;
    this.#command = new Command(api, listener);
    this.#pause.addEventListener('click', () => this.#pauseOrResume());
    this.#reload.addEventListener('click', () => this.#give('reload_settings', 'Applying settings'));
    this.#choice.addEventListener('change', () => {
      this.#chosen = this.#choice.value;
      listener.touched();
    });
    this.#switch.addEventListener('click', () => {
      const mode = this.#choice.value;
      if (mode !== this.#mode) this.#give('switch_mode', `Switching to ${words(mode)}`, { mode });
    });
  }

  get #mode() {
    return String(this.#control.content?.settings.dispatch_mode ?? '');
  }

  async #pauseOrResume() {
    if (!this.#enabled) return;
    if (this.#control.content?.paused) this.#give('resume', 'Resuming');
    else if (await confirmed(PAUSE)) this.#give('pause', 'Pausing');
  }

  /** @param {string} name @param {string} verb @param {object} [body] */
  async #give(name, verb, body = {}) {
    if (!this.#enabled) return;
    this.#before = this.#control.content?.version ?? 0;
    await this.#command.give({ name, verb, method: 'POST', path: `v1/control/${name}`, body });
    this.#chosen = null;
  }

  /** Whether the topic has yet to come to what was answered. */
  get #awaited() {
    const version = this.#command.phase === 'answered' ? this.#command.answer?.version : undefined;
    return version !== undefined && version !== null && (this.#control.content?.version ?? 0) < version;
  }

  /** @param {boolean} controlled whether the state is known and can be changed @param {string} why if not */
  render(controlled, why) {
    const { content } = this.#control;
    const busy = this.#command.busy || this.#awaited;
    this.#enabled = controlled && !busy;
    setText(byId('control-state'), this.#headline());
    setAttribute(byId('control'), 'data-control', this.#kind());
    setText(byId('control-facts'), content ? `${this.#aside()}${words(this.#mode)} · version ${content.version}` : '');
    setText(byId('control-note'), this.#note());
    setText(byId('control-why'), controlled ? '' : why);
    setText(this.#pause, content?.paused ? 'Resume' : 'Pause …');
    this.#renderModes();
    for (const button of [this.#pause, this.#reload]) setAttribute(button, 'aria-disabled', this.#enabled ? null : 'true');
    setAttribute(this.#switch, 'aria-disabled', this.#enabled && this.#choice.value !== this.#mode ? null : 'true');
    setHidden(this.#switch, this.#choice.value === this.#mode && this.#chosen === null);
  }

  #renderModes() {
    const modes = this.#control.content?.modes ?? [];
    const shown = [...this.#choice.options].map((option) => option.value);
    if (modes.join() !== shown.join()) arrange(this.#choice, modes.map((mode) => el('option', { value: mode }, words(mode))));
    const wanted = this.#chosen !== null && modes.includes(this.#chosen) ? this.#chosen : this.#mode;
    if (this.#choice.value !== wanted) this.#choice.value = wanted;
  }

  /** Whether the answer of the command is about what is in force now. */
  get #told() {
    return this.#command.phase === 'answered' && this.#command.answer?.version === this.#control.content?.version;
  }

  /** @returns {'unknown' | 'moving' | 'paused' | 'running'} */
  #kind() {
    const { content, change } = this.#control;
    if (content === null) return 'unknown';
    if (this.#command.busy || this.#awaited || (change && !change.complete && !this.#told)) return 'moving';
    return content.paused ? 'paused' : 'running';
  }

  #headline() {
    const { content, progress, change } = this.#control;
    const kind = this.#kind();
    if (content === null || kind === 'unknown') return 'Not known yet';
    const own = this.#command.busy || this.#awaited;
    const nodes = `${progress.followed} of ${progress.nodes} nodes`;
    if (kind === 'moving') {
      const verb = own || change === null ? this.#command.order?.verb : verbOf(change);
      return !own || content.version > this.#before ? `${verb} … ${nodes}` : `${verb} …`;
    }
    const state = content.paused ? 'Paused' : 'Running';
    return progress.behind.length ? `${state} on ${nodes}` : state;
  }

  /** Whether it is paused, while something is being done that does not change that. */
  #aside() {
    const { content, change } = this.#control;
    if (this.#kind() !== 'moving') return '';
    const own = this.#command.busy || this.#awaited ? this.#command.order?.name : '';
    if (own === 'pause' || own === 'resume' || (change && !change.complete && change.changes.paused)) return '';
    return content?.paused ? 'paused · ' : 'running · ';
  }

  #note() {
    const { change, progress } = this.#control;
    const said = trouble(this.#command);
    if (said) return said;
    if (this.#command.phase === 'answered' && this.#command.answer && this.#told) {
      return notFollowed(this.#command.answer, this.#command.answer.version ?? 0, this.#control);
    }
    if (change?.gone.length) return sentence(`${nodesOf(change.gone)} ${change.gone.length === 1 ? 'is' : 'are'} gone: the others go on without`);
    return progress.behind.length ? sentence(`waiting for ${nodesOf(progress.behind)}`) : '';
  }
}
