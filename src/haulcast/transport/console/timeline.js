/**
 * The timeline of one broadcast: what happened, in order, with each wave's radius and who was left out of it and why.
 *
 * What has happened stays as it was, so each entry is made once.
 *
 * @typedef {import('./inquiry.js').TimelineEntry} TimelineEntry
 */

import { clockTime } from './clock.js';
import { arrange, el } from './dom.js';
import { END_REASON, TRIP, counted, distance, shortId, words } from './format.js';

/** The server tells of so many at most, the nearest. */
const LEFT_OUT_TOLD = 20;

/** Which of the trucks asked for a trip is of: its id ends with that. @param {string} tripId */
const truckOf = (tripId) => {
  const number = /-(\d+)-t$/.exec(tripId)?.[1];
  return number ? `truck ${number}` : shortId(tripId);
};

/** What an entry says. @param {TimelineEntry} entry */
function sayings(entry) {
  const told = entry.notified ? counted(entry.notified, 'transporter') : 'nobody';
  const { radius_m: metres } = entry;
  const radius = typeof metres === 'number' ? `within ${distance(metres)}` : metres === null ? 'at any distance' : '';
  switch (entry.event) {
    case 'created':
      return ['Created', ''];
    case 'wave_sent':
      return [`Wave ${entry.wave ?? ''}`, [`offered to ${told}`, radius].filter(Boolean).join(' ')];
    case 'offered':
      return ['Offered', `to ${told} who came in reach, wave ${entry.wave ?? ''}`];
    case 'declined':
      return ['Declined', 'by a transporter'];
    case 'truck_assigned':
      return ['Truck found', `${entry.transporter_id ?? ''}, ${words(entry.vehicle_type ?? '')} ${entry.vehicle_id ?? ''}, driver ${entry.driver_id ?? ''}`];
    case 'trip_updated':
      return ['Trip', `${TRIP[entry.status ?? ''] ?? words(entry.status ?? '')} (${truckOf(entry.trip_id ?? '')})`];
    case 'reminded':
      return ['Reminder', 'the customer was told that time runs out'];
    case 'cancelled':
    case 'expired':
      return [entry.event === 'expired' ? 'Expired' : 'Cancelled', END_REASON[entry.reason ?? ''] ?? words(entry.reason ?? '')];
    default:
      return [words(entry.event), ''];
  }
}

/** @param {TimelineEntry} entry */
function leftOut(entry) {
  const all = entry.left_out ?? [];
  if (!all.length) return null;
  /** @type {Map<string, number>} */
  const reasons = new Map();
  for (const { reason } of all) reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  const why = [...reasons].map(([reason, count]) => `${count} ${words(reason)}`).join(', ');
  const rows = all.map((one) =>
    el(
      'tr',
      {},
      el('td', {}, one.transporter_id),
      el('td', {}, [one.vehicle_id, one.vehicle_type && words(one.vehicle_type)].filter(Boolean).join(', ')),
      el('td', { class: 'num' }, typeof one.distance_m === 'number' ? distance(one.distance_m) : ''),
      el('td', {}, words(one.reason)),
    ),
  );
  const head = el('tr', {}, ...['Transporter', 'Vehicle', 'Distance', 'Why'].map((name) => el('th', { scope: 'col', class: name === 'Distance' && 'num' }, name)));
  const which = all.length < LEFT_OUT_TOLD ? `${all.length} left out` : `The nearest ${all.length} of those left out`;
  return el(
    'details',
    { class: 'left-out' },
    el('summary', {}, `${which}: ${why}`),
    el('table', {}, el('thead', {}, head), el('tbody', {}, ...rows)),
  );
}

export class Timeline {
  /** @type {Map<string, HTMLElement>} */ #items = new Map();

  constructor() {
    this.list = el('ol', { class: 'timeline' });
  }

  /**
   * @param {TimelineEntry[]} entries @param {import('./clock.js').Clock} clock
   */
  render(entries, clock) {
    const items = new Map();
    for (const entry of entries) {
      const key = `${entry.seq} ${entry.event} ${entry.at}`;
      items.set(key, this.#items.get(key) ?? this.#make(entry, clock));
    }
    this.#items = items;
    arrange(this.list, [...items.values()]);
  }

  /** @param {TimelineEntry} entry @param {import('./clock.js').Clock} clock */
  #make(entry, clock) {
    const [name, more] = sayings(entry);
    return el(
      'li',
      { 'data-event': entry.event },
      el('time', { datetime: new Date(entry.at).toISOString() }, clockTime(clock.local(entry.at))),
      el('div', {}, el('b', {}, name), more && ` ${more}`, leftOut(entry)),
    );
  }
}
