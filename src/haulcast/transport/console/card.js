/**
 * One broadcast as a card of the board: a button that selects it.
 *
 * `update` brings in a view that has changed, `tick` only what the passing of time changes. Both touch nothing that is
 * as it was.
 *
 * @typedef {import('./check.js').View} View
 */

import { countdown, span } from './clock.js';
import { el, setAttribute, setText } from './dom.js';
import { END_REASON, TRIP, columnOf, placeName, shortId, trucksByType, words } from './format.js';

/** A broadcast is urgent when less is left of its time than this, or than this share of it. */
const URGENT_MS = 30_000;
const URGENT_SHARE = 0.25;
const WINNERS_SHOWN = 3;

export class Card {
  #left = el('span', { class: 'card-left' });
  #from = el('span', { class: 'place' });
  #to = el('span', { class: 'place' });
  #trucks = el('span', { class: 'card-trucks' });
  #wave = el('span', { class: 'card-wave' });
  #outcome = el('span', { class: 'card-outcome' });
  #fill = el('span', { class: 'bar-fill' });
  #bar = el('span', { class: 'bar', 'aria-hidden': 'true' }, this.#fill);
  /** @type {View | null} */ #view = null;

  /** @param {string} id */
  constructor(id) {
    this.button = el(
      'button',
      { type: 'button', class: 'card', 'data-broadcast': id },
      el(
        'span',
        { class: 'card-top' },
        el('span', { class: 'card-id' }, el('span', { class: 'sr' }, 'Broadcast '), shortId(id)),
        this.#wave,
        this.#left,
      ),
      el('span', { class: 'card-way' }, this.#from, el('span', { class: 'arrow' }, '→'), this.#to),
      this.#trucks,
      this.#outcome,
      this.#bar,
    );
    this.item = el('li', {}, this.button);
  }

  /** @param {View} view @param {number} now the server's time */
  update(view, now) {
    if (view !== this.#view) {
      this.#view = view;
      setAttribute(this.button, 'data-status', view.status);
      setText(this.#from, placeName(view.pickup));
      setText(this.#to, placeName(view.drop));
      const trucks = trucksByType(view);
      setText(this.#trucks, trucks.map(({ type, found, asked }) => `${words(type)} ${found}/${asked}`).join(' · '));
      const told = view.ended_at === null ? ` · ${view.notified} told` : '';
      setText(this.#wave, view.wave ? `wave ${view.wave}${told}` : 'no wave yet');
      const outcome = outcomeOf(view);
      setText(this.#outcome, outcome);
      this.#outcome.hidden = !outcome;
      this.#bar.hidden = view.ended_at !== null;
    }
    this.tick(now);
  }

  /** @param {number} now the server's time */
  tick(now) {
    const view = this.#view;
    if (!view) return;
    if (view.ended_at !== null) {
      setText(this.#left, `${span(now - view.ended_at)} ago`);
      setAttribute(this.button, 'data-urgent', false);
      return;
    }
    const left = view.expires_at - now;
    setText(this.#left, left > 0 ? countdown(left) : 'time is up');
    const share = Math.min(1, Math.max(0, left / Math.max(1, view.expires_at - view.created_at)));
    setAttribute(this.button, 'data-urgent', left < URGENT_MS && share < URGENT_SHARE);
    const scale = `scaleX(${share.toFixed(3)})`;
    if (this.#fill.style.transform !== scale) this.#fill.style.transform = scale;
  }

  /** @param {boolean} stops whether Tab stops here */
  stop(stops) {
    setAttribute(this.button, 'tabindex', stops ? 0 : -1);
  }

  /** @param {boolean} selected */
  select(selected) {
    setAttribute(this.button, 'aria-current', selected && 'true');
  }
}

/** Who won and how far they are, or why it ended. @param {View} view */
function outcomeOf(view) {
  const trips = Object.values(view.trips);
  const far = (/** @type {import('./check.js').Trip} */ trip) => TRIP[trip.status] ?? words(trip.status);
  const alike = trips.length > 0 && trips.every((trip) => trip.status === trips[0].status);
  const winners = trips.slice(0, WINNERS_SHOWN).map((trip) => (alike ? trip.transporter_id : `${trip.transporter_id} ${far(trip)}`));
  if (trips.length > WINNERS_SHOWN) winners.push(`${trips.length - WINNERS_SHOWN} more`);
  const won = winners.join(', ') + (alike ? ` · ${far(trips[0])}` : '');
  if (columnOf(view.status) !== 'ended') return won;
  const why = view.end_reason ? END_REASON[view.end_reason] ?? words(view.end_reason) : words(view.status);
  return won ? `${why}; ${won}` : why;
}
