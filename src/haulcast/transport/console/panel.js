/**
 * The control panel: what is in force for the tenant, and what can be done about it.
 *
 * The state line is always there; settings, announcements and the two lists stand in a panel of their own, one at a time.
 * All of it shows what `control.js` holds, and commands by `command.js`; the lists are asked for.
 *
 * @typedef {import('./control.js').Control} Control
 * @typedef {import('./link.js').Link} Link
 */

import { Announcements } from './announce.js';
import { clockTime } from './clock.js';
import { wireConfirm } from './confirm.js';
import { byId, setAttribute, setHidden } from './dom.js';
import { Drain } from './drain.js';
import { Ledger } from './ledger.js';
import { SettingsForm } from './settings.js';
import { StateLine } from './state.js';

const VIEWS = ['settings', 'announce', 'history', 'audit'];

export class Panel {
  /** Whether it is open. */ open = false;
  #control; #clock; #view = 'settings'; #moved;

  /**
   * @param {Control} control @param {import('./api.js').Api} api @param {import('./clock.js').Clock} clock
   * @param {{touched: () => void, bad: (why: string) => void, refused: (why: string) => void, done: () => void,
   *   moved: () => void}} listener `done`: a command may have changed something; `moved`: it was opened or closed
   */
  constructor(control, api, clock, { moved, ...listener }) {
    this.#control = control;
    this.#clock = clock;
    this.#moved = moved;
    const commanded = {
      ...listener,
      done: () => {
        for (const ledger of [this.history, this.audit]) ledger.expire();
        listener.done();
      },
    };
    this.state = new StateLine(control, api, commanded);
    this.settings = new SettingsForm(control, api, commanded);
    this.announcements = new Announcements(control, api, commanded);
    this.drain = new Drain(api, commanded);
    this.history = new Ledger('v1/settings/history', 'history', api, clock, listener);
    this.audit = new Ledger('v1/control', 'audit', api, clock, listener);
    wireConfirm();
    byId('panel-toggle').addEventListener('click', () => this.show(!this.open));
    byId('panel-close').addEventListener('click', () => {
      this.show(false);
      byId('panel-toggle').focus();
    });
    for (const view of VIEWS) byId(`view-${view}`).addEventListener('click', () => this.#turnTo(view));
    this.#turnTo(this.#view);
    this.show(false);
  }

  stop() {
    for (const ledger of [this.history, this.audit]) ledger.stop();
  }

  /** Open or close it. What was begun in it stays. @param {boolean} open */
  show(open) {
    this.open = open;
    setHidden(byId('panel'), !open);
    setAttribute(byId('app'), 'data-panel-open', open);
    setAttribute(byId('panel-toggle'), 'aria-expanded', String(open));
    if (open) this.settings.open();
    this.#moved();
  }

  /** @param {string} view */
  #turnTo(view) {
    this.#view = view;
    for (const each of VIEWS) {
      setHidden(byId(`panel-${each}`), each !== view);
      setAttribute(byId(`view-${each}`), 'aria-pressed', String(each === view));
    }
    this.#moved();
  }

  /** @param {Link} link */
  render(link) {
    const { controlled } = link;
    this.state.render(controlled, whyNot(link));
    this.settings.render(controlled);
    this.announcements.render(controlled, this.#clock.now());
    const version = this.#control.content?.version ?? 0;
    const asked = this.open && controlled;
    this.history.render(asked && this.#view === 'history', version);
    this.audit.render(asked && this.#view === 'audit', version);
  }
}

/** Why nothing can be changed. @param {Link} link */
function whyNot({ state, trueAt, controlled }) {
  if (controlled) return '';
  if (state === 'live' || state === 'polling') return 'Nothing can be changed until the server has told what is in force.';
  return trueAt ? `Nothing can be changed without a connection. This was so at ${clockTime(trueAt)}.` : 'Nothing can be changed without a connection.';
}
