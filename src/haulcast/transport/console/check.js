/**
 * Checks of everything that comes from outside, before anything uses it.
 *
 * 1. A check takes a value and says what is wrong with it, as text with the path, or `null` if nothing is.
 * 2. Fields that are not known are let pass: servers may add some. Known ones must have their shape and type.
 * 3. Whoever finds a message wrong drops all of it. Nothing here repairs anything.
 *
 * @typedef {(value: unknown, at: string) => string | null} Check
 * @typedef {{lat: number, lng: number, address: string}} Place
 * @typedef {{request_id: string, vehicle_type: string, status: string}} TruckRequest
 * @typedef {{trip_id: string, request_id: string, status: string, transporter_id: string, vehicle_id: string,
 *   vehicle_type: string, driver_id: string, assigned_at: number, updated_at: number}} Trip
 * @typedef {{transporter_id: string, lat: number, lng: number, distance_m: number | null,
 *   duration_s: number | null}} RouteVehicle  without a distance there is no road
 * @typedef {{status: 'ok' | 'failing', reason?: string, source: string, updated_at: number | null,
 *   vehicles: Record<string, RouteVehicle>}} Route  never brought up to date: null
 * @typedef {{broadcast_id: string, customer_id: string, status: string, end_reason: string | null, pickup: Place,
 *   drop: Place, note: string, created_at: number, expires_at: number, ended_at: number | null, wave: number,
 *   notified: number, remaining_requests: number, requests: Record<string, TruckRequest>,
 *   trips: Record<string, Trip>, route?: Route | null}} View
 * @typedef {[number, number]} Version
 */

const STATUSES = ['searching', 'partially_filled', 'fully_filled', 'cancelled', 'expired'];
const TRUCK_STATUSES = ['searching', 'assigned', 'cancelled', 'expired'];
const TRIP_STATUSES = ['assigned', 'en_route', 'at_pickup', 'loaded', 'delivered', 'cancelled'];

/** @param {unknown} value @returns {value is Record<string, unknown>} */
export const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/** @type {Check} */
export const text = (value, at) => (typeof value === 'string' ? null : `${at}: expected text`);

/** @type {Check} */
export const number = (value, at) => (Number.isFinite(value) ? null : `${at}: expected a number`);

/** @type {Check} */
export const whole = (value, at) => (Number.isSafeInteger(value) ? null : `${at}: expected a whole number`);

/** @type {Check} */
export const count = (value, at) =>
  Number.isSafeInteger(value) && /** @type {number} */ (value) >= 0 ? null : `${at}: expected a count`;

/** @type {Check} */
export const flag = (value, at) => (typeof value === 'boolean' ? null : `${at}: expected true or false`);

/** @param {number} low @param {number} high @returns {Check} */
export const between = (low, high) => (value, at) =>
  Number.isFinite(value) && /** @type {number} */ (value) >= low && /** @type {number} */ (value) <= high
    ? null
    : `${at}: expected ${low} to ${high}`;

/** @param {string[]} allowed @returns {Check} */
export const oneOf = (allowed) => (value, at) =>
  allowed.includes(/** @type {string} */ (value)) ? null : `${at}: expected one of ${allowed.join(', ')}`;

/** @param {Check} check @returns {Check} */
export const nullable = (check) => (value, at) => (value === null ? null : check(value, at));

/** @param {Check} check @returns {Check} */
export const optional = (check) => (value, at) => (value === undefined || value === null ? null : check(value, at));

/** @param {Check} check @returns {Check} */
export const listOf = (check) => (value, at) => {
  if (!Array.isArray(value)) return `${at}: expected a list`;
  for (let index = 0; index < value.length; index += 1) {
    const wrong = check(value[index], `${at}[${index}]`);
    if (wrong) return wrong;
  }
  return null;
};

/** @param {Check} check @returns {Check} */
export const mapOf = (check) => (value, at) => {
  if (!isObject(value)) return `${at}: expected an object`;
  for (const key of Object.keys(value)) {
    if (key === '__proto__') return `${at}: a key that cannot be`;
    const wrong = check(value[key], `${at}.${key}`);
    if (wrong) return wrong;
  }
  return null;
};

/** @param {Record<string, Check>} fields @returns {Check} */
export const struct = (fields) => {
  const names = Object.keys(fields);
  return (value, at) => {
    if (!isObject(value)) return `${at}: expected an object`;
    for (const name of names) {
      const wrong = fields[name](value[name], `${at}.${name}`);
      if (wrong) return wrong;
    }
    return null;
  };
};

/** @type {Check} */
export const version = (value, at) =>
  Array.isArray(value) && value.length === 2 && value.every(Number.isSafeInteger)
    ? null
    : `${at}: expected two whole numbers`;

const lat = between(-90, 90);
const lng = between(-180, 180);
const place = struct({ lat, lng, address: text });
const truck = struct({ request_id: text, vehicle_type: text, status: oneOf(TRUCK_STATUSES) });
const trip = struct({
  trip_id: text,
  request_id: text,
  status: oneOf(TRIP_STATUSES),
  transporter_id: text,
  vehicle_id: text,
  vehicle_type: text,
  driver_id: text,
  assigned_at: whole,
  updated_at: whole,
});
const route = struct({
  status: oneOf(['ok', 'failing']),
  reason: optional(text),
  source: text,
  updated_at: nullable(whole),
  vehicles: mapOf(struct({ transporter_id: text, lat, lng, distance_m: nullable(count), duration_s: nullable(count) })),
});
const VIEW = {
  broadcast_id: text,
  customer_id: text,
  status: oneOf(STATUSES),
  end_reason: nullable(text),
  pickup: place,
  drop: place,
  note: text,
  created_at: whole,
  expires_at: whole,
  ended_at: nullable(whole),
  wave: count,
  notified: count,
  remaining_requests: count,
  requests: mapOf(truck),
  trips: mapOf(trip),
  route: optional(route),
};

/** A broadcast, as the board shows it. */
export const view = struct(VIEW);

/** What a topic shows, if it is a board. */
export const board = struct({ broadcasts: mapOf(view) });

const leftOut = struct({
  transporter_id: text,
  vehicle_id: optional(text),
  vehicle_type: optional(text),
  distance_m: optional(number),
  reason: text,
});
const entry = struct({
  seq: count,
  at: whole,
  event: text,
  wave: optional(count),
  notified: optional(count),
  radius_m: optional(number),
  left_out: optional(listOf(leftOut)),
  reason: optional(text),
  status: optional(text),
  trip_id: optional(text),
  transporter_id: optional(text),
  vehicle_id: optional(text),
  vehicle_type: optional(text),
  driver_id: optional(text),
});

/** The answer of `GET /v1/broadcasts/{id}`. */
export const detail = struct({ ...VIEW, timeline: listOf(entry) });

/** The answer of `GET /v1/topics/board:{tenant}`. */
export const polled = struct({ topic: text, server_time: whole, data: board });

const node = struct({ node: whole, answered: flag });
const nodeThatAnswered = struct({
  active_broadcasts: count,
  lease_age_ms: count,
  lease_ttl_ms: count,
  loop_lag_ms: number,
  draining: flag,
});

/** The answer of `GET /v1/nodes`. */
export const nodes = struct({
  server_time: whole,
  nodes: listOf((value, at) => node(value, at) ?? (/** @type {any} */ (value).answered ? nodeThatAnswered(value, at) : null)),
});

/** `config.json` of this page. */
export const config = struct({ version: text, tiles: nullable(struct({ url: text, attribution: text })) });

/** The reply to a hello. */
export const greeting = struct({
  role: text,
  user: text,
  tenant: text,
  server_time: whole,
  topics: listOf(text),
  resumed: listOf(text),
});

const failure = struct({ code: text, message: text, retry: flag });
const reply = struct({ ok: flag, data: optional(mapOf(() => null)), error: optional(failure) });
const patch = struct({ set: optional(mapOf(() => null)), del: optional(listOf(text)) });
const snapshotFrame = struct({ topic: text, version, server_time: whole, data: board });
const deltaFrame = struct({ topic: text, from: version, version, server_time: whole, data: patch });

/**
 * What is wrong with a frame from the socket. Frames of kinds that are not known are fine, and nobody's business.
 * @param {unknown} value
 * @returns {string | null}
 */
export function frame(value) {
  if (!isObject(value)) return 'frame: expected an object';
  if ('re' in value) return reply(value, 'reply');
  if (value.type === 'snapshot') return snapshotFrame(value, 'snapshot');
  if (value.type === 'delta') return deltaFrame(value, 'delta');
  return text(value.type, 'frame.type');
}
