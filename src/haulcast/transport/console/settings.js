/**
 * The form in which the tenant's settings are changed, and the view of what will be different before it is saved.
 *
 * 1. Its fields are the settings that the server sends, whatever these are. What a value may be the server says, at
 *    the field.
 * 2. It is saved on top of the version that the operator has seen. If somebody else was faster, their changes are shown,
 *    the own ones are kept, and nothing is saved until the operator has agreed to go on.
 *
 * @typedef {import('./control.js').Control} Control
 */

import { settings as checkSettings } from './check.js';
import { Command } from './command.js';
import { arrange, byId, el, setAttribute, setHidden, setText } from './dom.js';
import { Draft } from './draft.js';
import { Field } from './field.js';
import { countedChanges, saidChanges } from './labels.js';
import { notFollowed, trouble } from './outcome.js';

const FIELD = /^body\.settings\.([^.[\]]+)/;

export class SettingsForm {
  #control; #api; #listener; #command;
  #draft = new Draft();
  /** @type {Map<string, Field>} */ #fields = new Map();
  /** What the server has set for those who choose nothing. @type {Record<string, unknown>} */ #defaults = {};
  /** What the server said of fields, until they are touched. @type {Map<string, string>} */ #refused = new Map();
  /** Whether problems are shown that are not the server's. */ #strict = false;
  #reviewing = false;
  #enabled = false;
  #asking = false;

  /**
   * @param {Control} control @param {import('./api.js').Api} api
   * @param {ConstructorParameters<typeof Command>[1]} listener
   */
  constructor(control, api, listener) {
    this.#control = control;
    this.#api = api;
    this.#listener = listener;
    this.#command = new Command(api, listener);
    byId('settings-form').addEventListener('submit', (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#review();
    });
    byId('settings-discard').addEventListener('click', () => this.#discard());
    byId('settings-agree').addEventListener('click', () => this.#agree());
    byId('settings-save').addEventListener('click', () => this.#save());
    byId('settings-back').addEventListener('click', () => this.#back());
  }

  /** Ask for the defaults, which no topic tells. */
  async open() {
    if (this.#asking || Object.keys(this.#defaults).length) return;
    this.#asking = true;
    try {
      const { status, data } = await this.#api.get('v1/settings');
      const wrong = status === 200 ? checkSettings(data, 'settings') : null;
      if (wrong !== null) this.#listener.bad(wrong);
      else if (status === 200) this.#defaults = /** @type {any} */ (data).defaults;
    } catch {
      // no defaults are offered, until it is opened again
    }
    this.#asking = false;
    this.#listener.touched();
  }

  #review() {
    const { changes, problems } = this.#draft.outcome;
    this.#strict = true;
    this.#reviewing = problems.size === 0 && Object.keys(changes).length > 0;
    this.render(this.#enabled);
    if (this.#reviewing) byId('settings-review-title').focus();
    else this.#focusProblem(problems);
  }

  #back() {
    this.#reviewing = false;
    this.render(this.#enabled);
    byId('settings-continue').focus();
  }

  #discard() {
    this.#draft.clear();
    this.#refused.clear();
    this.#command.forget();
    this.#strict = false;
    this.#reviewing = false;
    this.#listener.touched();
  }

  #agree() {
    this.#draft.agree();
    this.#command.forget();
    this.#listener.touched();
    this.render(this.#enabled);
    byId('settings-continue').focus();
  }

  async #save() {
    const { base, conflict } = this.#draft;
    const { changes } = this.#draft.outcome;
    if (!this.#enabled || !base || conflict || this.#draft.saving) return;
    const settings = Object.fromEntries(Object.entries(changes).map(([name, { to }]) => [name, to]));
    this.#draft.saving = true;
    this.#refused.clear();
    const body = { expected_version: base.version, settings };
    await this.#command.give({ name: 'patch_settings', verb: 'Applying settings', method: 'PATCH', path: 'v1/settings', body });
    const done = this.#command.phase === 'answered';
    this.#draft.saved(done);
    this.#reviewing = false;
    if (done) this.#strict = false;
    this.#takeRefusal();
    this.render(this.#enabled);
    if (this.#refused.size) this.#focusProblem(this.#refused);
    else byId('settings-status').focus();
  }

  #takeRefusal() {
    const { failure } = this.#command;
    const name = FIELD.exec(String(failure?.data?.field ?? ''))?.[1];
    if (this.#command.phase !== 'refused' || !failure || name === undefined || !this.#fields.has(name)) return;
    const [, said = failure.message] = /^body\.settings\.[^:]*: (.*)$/s.exec(failure.message) ?? [];
    this.#refused.set(name, said);
  }

  /** @param {Map<string, string>} problems */
  #focusProblem(problems) {
    for (const [name, field] of this.#fields) {
      if (!problems.has(name)) continue;
      field.focus();
      return;
    }
  }

  /** @param {boolean} controlled whether what is in force is known and can be changed */
  render(controlled) {
    const { content } = this.#control;
    this.#enabled = controlled;
    if (content) this.#draft.take(content);
    const { base, conflict, saving } = this.#draft;
    if (base === null) return;
    const { changes, problems } = this.#draft.outcome;
    this.#renderFields(base.settings, problems);
    const count = Object.keys(changes).length;
    setHidden(byId('settings-form'), this.#reviewing);
    setHidden(byId('settings-review'), !this.#reviewing);
    setText(byId('settings-continue'), count ? `Review ${countedChanges(count)} …` : 'Review changes …');
    setAttribute(byId('settings-continue'), 'aria-disabled', this.#draft.dirty ? null : 'true');
    setHidden(byId('settings-discard'), !this.#draft.dirty);
    this.#list('settings-changes', saidChanges(changes));
    setText(byId('settings-save'), saving ? 'Saving …' : `Save ${countedChanges(count)}`);
    setAttribute(byId('settings-save'), 'aria-disabled', controlled && !conflict && !saving && count ? null : 'true');
    setHidden(byId('settings-conflict'), conflict === null);
    setText(byId('settings-conflict-text'), conflict ? `Somebody else has changed the settings (version ${content?.version}). Your changes are kept:` : '');
    this.#list('settings-theirs', saidChanges(conflict ?? {}));
    setText(byId('settings-status'), this.#status());
  }

  /** @param {Record<string, unknown>} settings @param {Map<string, string>} problems */
  #renderFields(settings, problems) {
    const fields = new Map();
    for (const name of Object.keys(settings)) {
      const kind = this.#draft.kind(name);
      const held = this.#fields.get(name);
      const field = held?.kind === kind ? held : new Field(name, kind, this.#fieldListener(name));
      field.update({
        text: this.#draft.text(name),
        changed: this.#draft.touched(name),
        problem: this.#refused.get(name) ?? (this.#strict ? problems.get(name) : '') ?? '',
        initial: this.#defaults[name],
        modes: this.#control.content?.modes ?? [],
      });
      fields.set(name, field);
    }
    this.#fields = fields;
    arrange(byId('settings-fields'), [...fields.values()].map((field) => field.item));
  }

  /** @param {string} name */
  #fieldListener(name) {
    const touched = () => {
      this.#refused.delete(name);
      if (!this.#command.busy) this.#command.forget();
      this.#listener.touched();
    };
    return {
      edited: (/** @type {string} */ text) => {
        this.#draft.edit(name, text);
        touched();
      },
      reset: () => {
        this.#draft.set(name, this.#defaults[name]);
        touched();
      },
    };
  }

  #status() {
    const { phase, answer, failure } = this.#command;
    if (this.#command.busy && phase === 'sending') return 'Saving …';
    if (phase === 'refused' && failure?.code === 'VERSION_MISMATCH') {
      return this.#draft.conflict
        ? 'Not saved: somebody else was faster.'
        : 'Not saved: another command came in between, which changed no settings. Save again.';
    }
    if (phase === 'refused' && this.#refused.size) return 'Not saved: see the field that is marked.';
    if (phase === 'answered' && answer) {
      const version = answer.version ?? 0;
      const { content, progress } = this.#control;
      if ((content?.version ?? 0) <= version && progress.behind.length && answer.complete) return 'Saved. Waiting for the nodes …';
      return `Saved as version ${version}. ${notFollowed(answer, version, this.#control)}`.trim();
    }
    return trouble(this.#command);
  }

  /** @param {string} id @param {string[]} lines */
  #list(id, lines) {
    const host = byId(id);
    const shown = [...host.children].map((child) => child.textContent);
    if (shown.join('\n') !== lines.join('\n')) arrange(host, lines.map((line) => el('li', {}, line)));
  }
}
