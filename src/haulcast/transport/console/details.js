/**
 * The selected broadcast: state, way, trucks, trips, the vehicles that were offered it, and its timeline.
 *
 * 1. What it is comes from the board, the timeline from an `Inquiry`. A broadcast that has left the board is shown as the
 *    inquiry had it last, and that is said.
 * 2. Its parts are made anew when the view has changed, and only then; between, the countdown alone is touched.
 *
 * @typedef {import('./check.js').View} View
 */

import { clockTime, countdown, span } from './clock.js';
import { byId, el, setAttribute, setHidden, setText } from './dom.js';
import { END_REASON, STATUS, TRIP, coordinates, counted, distance, metresBetween, trucksByType, words } from './format.js';
import { Timeline } from './timeline.js';

const NUMERIC = new Set(['At', 'Distance', 'ETA']);

/** @param {string} name @param {...(Node | string | null)} value */
const fact = (name, ...value) => el('div', { class: 'fact' }, el('dt', {}, name), el('dd', {}, ...value));

/** @param {string} title @param {...(Node | null)} content */
const part = (title, ...content) => el('section', { class: 'part' }, el('h3', {}, title), ...content);

/** @param {string[]} names @param {HTMLElement[]} rows */
const table = (names, rows) =>
  el(
    'table',
    {},
    el('thead', {}, el('tr', {}, ...names.map((name) => el('th', { scope: 'col', class: NUMERIC.has(name) && 'num' }, name)))),
    el('tbody', {}, ...rows),
  );

/** @param {(string | Node)[]} cells @param {Record<string, string | null>} [attributes] */
const row = (cells, attributes = {}) =>
  el('tr', attributes, ...cells.map((cell) => (typeof cell === 'string' ? el('td', {}, cell) : cell)));

/** @param {string} text */
const numeric = (text) => el('td', { class: 'num' }, text);

export class Details {
  #host = byId('details');
  #empty = byId('details-empty');
  #body = byId('details-body');
  #title = byId('details-title');
  #badge = byId('details-status');
  #left = byId('details-left');
  #note = byId('details-note');
  #facts = byId('details-facts');
  #problem = el('p', { class: 'note' });
  #timeline = new Timeline();
  /** @type {View | null} */ #view = null;
  /** @type {unknown} */ #entries = null;

  constructor() {
    byId('details-timeline').append(this.#problem, this.#timeline.list);
  }

  /**
   * @param {import('./inquiry.js').Inquiry} inquiry @param {View | undefined} held what the board has of it
   * @param {import('./clock.js').Clock} clock
   */
  render(inquiry, held, clock) {
    setHidden(this.#empty, inquiry.id !== null);
    setHidden(this.#body, inquiry.id === null);
    if (this.#host.getAttribute('data-broadcast') !== inquiry.id) {
      this.#host.scrollTop = 0;
      this.#timeline.render([], clock); // its entries are told apart within one broadcast only
      this.#entries = null;
    }
    setAttribute(this.#host, 'data-broadcast', inquiry.id);
    if (inquiry.id === null) {
      this.#view = null;
      return;
    }
    setText(this.#title, inquiry.id);
    const view = held ?? inquiry.view;
    setText(this.#note, held ? '' : view ? 'It has left the board. This is how it was when it was last read.' : 'Reading …');
    setHidden(this.#note, Boolean(held));
    if (view && view !== this.#view) this.#show(view, clock);
    if (view) this.#tick(view, clock.now());
    setText(this.#problem, inquiry.problem || (inquiry.timeline ? '' : 'Reading the timeline …'));
    setHidden(this.#problem, !this.#problem.textContent);
    if (this.#entries !== inquiry.timeline) {
      this.#entries = inquiry.timeline;
      this.#timeline.render(inquiry.timeline ?? [], clock);
    }
  }

  /** @param {View} view @param {number} now */
  #tick(view, now) {
    if (view.ended_at !== null) {
      setText(this.#left, `ended ${span(now - view.ended_at)} ago, after ${span(view.ended_at - view.created_at)}`);
      return;
    }
    const left = view.expires_at - now;
    setText(this.#left, left > 0 ? `expires in ${countdown(left)}` : 'time is up, waiting for the server’s word');
  }

  /** @param {View} view @param {import('./clock.js').Clock} clock */
  #show(view, clock) {
    this.#view = view;
    setText(this.#badge, STATUS[view.status] ?? view.status);
    setAttribute(this.#badge, 'data-status', view.status);
    const why = view.end_reason && (END_REASON[view.end_reason] ?? words(view.end_reason));
    const trucks = trucksByType(view).map(({ type, found, asked }) => `${words(type)} ${found} of ${asked}`);
    const facts = el(
      'dl',
      { class: 'facts' },
      fact('Pickup', ...this.#place(view.pickup)),
      fact('Drop', ...this.#place(view.drop)),
      fact('Distance', `${distance(metresBetween(view.pickup, view.drop))} as the crow flies`),
      fact('Trucks', trucks.join(', ')),
      fact('Waves', view.wave ? `${view.wave} sent, ${counted(view.notified, 'transporter')} told` : 'none sent yet'),
      fact('Customer', view.customer_id),
      fact('Created', clockTime(clock.local(view.created_at))),
      why ? fact('End', why) : fact('Expires', clockTime(clock.local(view.expires_at))),
      view.note ? fact('Note', view.note) : null,
    );
    this.#facts.replaceChildren(facts, ...[this.#trips(view, clock), this.#vehicles(view, clock)].filter((each) => each !== null));
  }

  /** @param {import('./check.js').Place} place */
  #place(place) {
    const where = coordinates(place);
    return place.address && place.address !== where ? [place.address, el('small', {}, where)] : [where];
  }

  /** @param {View} view @param {import('./clock.js').Clock} clock */
  #trips(view, clock) {
    const trips = Object.values(view.trips);
    if (!trips.length) return null;
    const rows = trips.map((trip) =>
      row([
        el('td', { class: 'winner' }, trip.transporter_id),
        `${words(trip.vehicle_type)} ${trip.vehicle_id}`,
        trip.driver_id,
        TRIP[trip.status] ?? words(trip.status),
        numeric(clockTime(clock.local(trip.assigned_at))),
      ]),
    );
    return part(`Won by (${trips.length})`, table(['Transporter', 'Vehicle', 'Driver', 'Trip', 'At'], rows));
  }

  /** @param {View} view @param {import('./clock.js').Clock} clock */
  #vehicles(view, clock) {
    const { route } = view;
    if (!route) return null;
    const won = new Set(Object.values(view.trips).map((trip) => trip.vehicle_id));
    const vehicles = Object.entries(route.vehicles).sort(([, one], [, other]) => (one.distance_m ?? Infinity) - (other.distance_m ?? Infinity));
    const rows = vehicles.map(([id, vehicle]) =>
      row(
        [
          vehicle.transporter_id,
          won.has(id) ? el('td', { class: 'winner' }, `${id} (won)`) : id,
          numeric(typeof vehicle.distance_m === 'number' ? distance(vehicle.distance_m) : 'no road'),
          numeric(typeof vehicle.duration_s === 'number' ? span(vehicle.duration_s * 1000) : '–'),
        ],
        { 'data-vehicle': id },
      ),
    );
    const failing = route.status === 'failing';
    const how = route.source === 'road' ? 'Distances by road.' : 'Distances as the crow flies.';
    const why = failing ? `Distances cannot be brought up to date: ${route.reason ? words(route.reason) : 'no reason given'}. ` : '';
    const asOf = failing && route.updated_at !== null ? ` As of ${clockTime(clock.local(route.updated_at))}.` : '';
    return part(
      `Nearest vehicles (${vehicles.length})`,
      el('p', { class: failing ? 'note warning' : 'note', 'data-route': route.status }, `${failing ? '▲ ' : ''}${why}${how}${asOf}`),
      vehicles.length ? table(['Transporter', 'Vehicle', 'Distance', 'ETA'], rows) : null,
    );
  }
}
