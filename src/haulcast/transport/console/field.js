/** One setting in the form: its name, what stands in it, what is wrong with it, and how to have its default again. */

import { arrange, el, setAttribute, setHidden, setText } from './dom.js';
import { same } from './json.js';
import { choicesOf, hintOf, labelOf, parsed, said, unitOf } from './labels.js';

/** @typedef {import('./labels.js').Kind} Kind */

export class Field {
  #input; #unit; #default; #problem; #changed;

  /** @param {string} name @param {Kind} kind @param {{edited: (text: string) => void, reset: () => void}} listener */
  constructor(name, kind, listener) {
    const id = `setting-${name}`;
    this.name = name;
    this.kind = kind;
    this.#input = /** @type {any} */ (this.#makeInput(id));
    this.#unit = el('span', { class: 'field-unit' }, unitOf(name));
    this.#problem = el('p', { class: 'field-problem', id: `${id}-problem` });
    this.#changed = el('span', { class: 'field-changed' }, 'changed');
    this.#default = el('button', { type: 'button', class: 'field-default', hidden: true });
    const hint = el('span', { class: 'field-hint', id: `${id}-hint` }, hintOf(name));
    this.item = el(
      'div',
      { class: 'field', 'data-setting': name },
      el('label', { class: 'field-name', for: id }, labelOf(name)),
      el('span', { class: 'field-input' }, this.#input, this.#unit),
      hint,
      this.#changed,
      this.#problem,
      this.#default,
    );
    this.#input.addEventListener(kind === 'choice' || kind === 'flag' ? 'change' : 'input', () =>
      listener.edited(kind === 'flag' ? String(this.#input.checked) : this.#input.value),
    );
    this.#default.addEventListener('click', () => {
      this.#input.focus();
      listener.reset();
    });
  }

  focus() {
    this.#input.focus();
  }

  /**
   * @param {{text: string, changed: boolean, problem: string, initial: unknown, modes: string[]}} shown
   *   `initial`: the default; undefined if that is not known
   */
  update({ text, changed, problem, initial, modes }) {
    if (this.kind === 'choice') this.#offer(choicesOf(this.name, modes, text));
    if (this.kind === 'flag') this.#input.checked = text === 'true';
    else if (this.#input.value !== text) this.#input.value = text;
    const id = `setting-${this.name}`;
    setAttribute(this.#input, 'aria-invalid', problem ? 'true' : null);
    setAttribute(this.#input, 'aria-describedby', problem ? `${id}-problem ${id}-hint` : `${id}-hint`);
    setText(this.#problem, problem);
    setHidden(this.#changed, !changed);
    const read = parsed(this.kind, text);
    setHidden(this.#default, initial === undefined || ('value' in read && same(read.value, initial)));
    if (initial === undefined) return;
    setText(this.#default, `Default: ${said(this.name, initial)}`);
    setAttribute(this.#default, 'aria-label', `Default: ${said(this.name, initial)}, reset ${labelOf(this.name)} to it`);
  }

  /** @param {string} id */
  #makeInput(id) {
    if (this.kind === 'choice') return el('select', { id });
    if (this.kind === 'flag') return el('input', { id, type: 'checkbox' });
    const numeric = this.kind === 'number' || this.kind === 'optional';
    return el('input', { id, type: 'text', inputmode: numeric ? 'decimal' : null, spellcheck: 'false', autocomplete: 'off' });
  }

  /** @param {Record<string, string>} choices */
  #offer(choices) {
    const shown = [...this.#input.options].map((/** @type {any} */ option) => option.value);
    if (shown.join() === Object.keys(choices).join()) return;
    arrange(this.#input, Object.entries(choices).map(([value, words]) => el('option', { value }, words)));
  }
}
