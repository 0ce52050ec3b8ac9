/** What is announced to everybody of a role: the form, and what is valid now. */

import { Command } from './command.js';
import { countdown } from './clock.js';
import { arrange, byId, el, setAttribute, setText } from './dom.js';
import { notFollowed, trouble } from './outcome.js';

/** @typedef {import('./check.js').Announcement} Announcement */

const FIELDS = ['audience', 'text', 'lifetime_s'];

class AnnouncementRow {
  #left = el('span', { class: 'entry-left' });

  /** @param {Announcement} announcement */
  constructor({ announcement_id: id, audience, text }) {
    this.item = el(
      'li',
      { class: 'entry', 'data-announcement': id },
      el('p', { class: 'entry-head' }, el('b', {}, `To every ${audience}`), ' · ', this.#left),
      el('p', { class: 'entry-text' }, text),
    );
  }

  /** @param {number} ms */
  update(ms) {
    setText(this.#left, `${countdown(ms)} left`);
  }
}

export class Announcements {
  #control; #command;
  /** @type {Map<string, AnnouncementRow>} */ #rows = new Map();
  #enabled = false;
  #text = byId('announce-text');
  #problem = '';

  /**
   * @param {import('./control.js').Control} control @param {import('./api.js').Api} api
   * @param {ConstructorParameters<typeof Command>[1]} listener
   */
  constructor(control, api, listener) {
    this.#control = control;
    this.#command = new Command(api, listener);
    byId('announce-form').addEventListener('submit', (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#announce();
    });
    this.#text.addEventListener('input', () => {
      this.#problem = '';
      this.#command.forget();
      listener.touched();
    });
  }

  async #announce() {
    if (!this.#enabled || this.#command.busy) return;
    const text = this.#text.value.trim();
    if (text === '') {
      this.#problem = 'There is nothing to announce yet.';
      this.#text.focus();
      return;
    }
    const body = { audience: byId('announce-audience').value, text, lifetime_s: Number(byId('announce-lifetime').value) };
    await this.#command.give({ name: 'announce', verb: 'Announcing', method: 'POST', path: 'v1/control/announce', body });
    if (this.#command.phase === 'answered') this.#text.value = '';
    if (this.#command.phase === 'refused' && this.#field) this.#text.focus();
  }

  /** Which field the server has refused. */
  get #field() {
    const field = String(this.#command.failure?.data?.field ?? '').replace('body.', '');
    return FIELDS.includes(field) ? field : '';
  }

  /** @param {boolean} controlled @param {number} now the server's time */
  render(controlled, now) {
    this.#enabled = controlled;
    const rows = new Map();
    const valid = Object.values(this.#control.content?.announcements ?? {}).filter((each) => each.expires_at > now);
    for (const announcement of valid.sort((one, other) => other.at - one.at)) {
      const row = this.#rows.get(announcement.announcement_id) ?? new AnnouncementRow(announcement);
      row.update(announcement.expires_at - now);
      rows.set(announcement.announcement_id, row);
    }
    this.#rows = rows;
    arrange(byId('announce-list'), [...rows.values()].map((row) => row.item));
    setText(byId('announce-nothing'), rows.size || !this.#control.known ? '' : 'Nothing is announced now.');
    setAttribute(byId('announce-send'), 'aria-disabled', controlled && !this.#command.busy ? null : 'true');
    setAttribute(this.#text, 'aria-invalid', this.#problem || this.#field ? 'true' : null);
    setText(byId('announce-status'), this.#problem || this.#status());
  }

  #status() {
    const { phase, answer } = this.#command;
    if (phase === 'sending') return 'Announcing …';
    if (phase !== 'answered' || !answer) return trouble(this.#command);
    return `Announced. ${notFollowed(answer, answer.version ?? 0, this.#control)}`.trim();
  }
}
