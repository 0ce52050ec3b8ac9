/**
 * How things of the board are said in words: states, places, distances, trucks.
 *
 * @typedef {import('./check.js').View} View
 * @typedef {import('./check.js').Place} Place
 * @typedef {'searching' | 'partially_filled' | 'fully_filled' | 'ended'} Column
 */

const EARTH_M = 6_371_000;

/** @type {Record<string, string>} */
export const STATUS = {
  searching: 'Searching',
  partially_filled: 'Partly filled',
  fully_filled: 'Filled',
  cancelled: 'Cancelled',
  expired: 'Expired',
};

/** @type {Record<string, string>} */
export const END_REASON = {
  filled: 'all trucks found',
  customer_cancelled: 'cancelled by the customer',
  replaced: 'replaced by another one',
  no_vehicles_available: 'time ran out, nobody came',
  expired: 'time ran out, some found',
};

/** @type {Record<string, string>} */
export const TRIP = {
  assigned: 'assigned',
  en_route: 'en route',
  at_pickup: 'at pickup',
  loaded: 'loaded',
  delivered: 'delivered',
  cancelled: 'cancelled',
};

/** A name for people of one for machines: `no_fix` is `no fix`. @param {string} name */
export const words = (name) => name.replaceAll('_', ' ');

/** @param {string} status @returns {Column} */
export const columnOf = (status) =>
  status === 'cancelled' || status === 'expired' ? 'ended' : /** @type {Column} */ (status);

/** The end of an id, which is what differs. @param {string} id */
export const shortId = (id) => (id.length > 9 ? id.slice(-8) : id);

/** @param {Place} place @param {number} [digits] */
export const coordinates = (place, digits = 3) => `${place.lat.toFixed(digits)}, ${place.lng.toFixed(digits)}`;

/** @param {Place} place */
export const placeName = (place) => place.address || coordinates(place, 2);

/** @param {number} metres */
export function distance(metres) {
  if (metres < 950) return `${Math.round(metres / 10) * 10} m`;
  return `${metres < 99_500 ? (metres / 1000).toFixed(1).replace('.0', '') : Math.round(metres / 1000)} km`;
}

/** As the crow flies, in metres. @param {{lat: number, lng: number}} one @param {{lat: number, lng: number}} other */
export function metresBetween(one, other) {
  const rad = Math.PI / 180;
  const half =
    Math.sin(((other.lat - one.lat) * rad) / 2) ** 2 +
    Math.cos(one.lat * rad) * Math.cos(other.lat * rad) * Math.sin(((other.lng - one.lng) * rad) / 2) ** 2;
  return 2 * EARTH_M * Math.asin(Math.min(1, Math.sqrt(half)));
}

/** The trucks asked for and found, by type. @param {View} view @returns {{type: string, found: number, asked: number}[]} */
export function trucksByType(view) {
  /** @type {Map<string, {type: string, found: number, asked: number}>} */
  const types = new Map();
  for (const request of Object.values(view.requests)) {
    const type = types.get(request.vehicle_type) ?? { type: request.vehicle_type, found: 0, asked: 0 };
    type.asked += 1;
    if (request.status === 'assigned') type.found += 1;
    types.set(request.vehicle_type, type);
  }
  return [...types.values()];
}

/** @param {number} number @param {string} one @param {string} [many] */
export const counted = (number, one, many = `${one}s`) => `${number.toLocaleString('en')} ${number === 1 ? one : many}`;

/** What a search looks in, in lower case. @param {View} view */
export function searchText(view) {
  const trips = Object.values(view.trips).map((trip) => `${trip.transporter_id} ${trip.vehicle_id} ${trip.driver_id}`);
  const types = Object.values(view.requests).map((request) => request.vehicle_type);
  const end = view.end_reason ? END_REASON[view.end_reason] ?? words(view.end_reason) : '';
  return [
    view.broadcast_id,
    view.customer_id,
    view.pickup.address,
    view.drop.address,
    view.note,
    STATUS[view.status],
    end,
    ...types,
    ...trips,
  ]
    .join('\n')
    .toLowerCase();
}
