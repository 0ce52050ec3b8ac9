/**
 * Checks of everything that comes from outside, before anything uses it (`shape.js` says how). Whoever finds a message
 * wrong drops all of it.
 *
 * @typedef {import('./shape.js').Check} Check
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
 * @typedef {{announcement_id: string, audience: string, text: string, at: number, expires_at: number}} Announcement
 * @typedef {{version: number, paused: boolean, settings: Record<string, unknown>, modes: string[],
 *   announcements: Record<string, Announcement>, nodes: Record<string, {node: number, version: number}>}} ControlView
 * @typedef {{node: number, status: string, after_ms?: number}} Follow  how a node has answered a command
 * @typedef {{complete: boolean, nodes: Follow[]}} Outcome
 * @typedef {Record<string, {from: unknown, to: unknown}>} Changes
 * @typedef {Outcome & {command: string, number: number, version?: number, changes?: Changes}} Controlled
 * @typedef {{number: number, at: number, by: {role: string, user: string}, command: string, data: Record<string, unknown>,
 *   version: number | null, changes: Changes, outcome: Outcome | null}} LogEntry
 * @typedef {[number, number]} Version
 */

import { any, between, count, flag, isObject, listOf, mapOf, nullable, number, oneOf, optional, struct, text, whole } from './shape.js';

const STATUSES = ['searching', 'partially_filled', 'fully_filled', 'cancelled', 'expired'];
const TRUCK_STATUSES = ['searching', 'assigned', 'cancelled', 'expired'];
const TRIP_STATUSES = ['assigned', 'en_route', 'at_pickup', 'loaded', 'delivered', 'cancelled'];

/** @type {Check} */
const version = (value, at) =>
  Array.isArray(value) && value.length === 2 && value.every(Number.isSafeInteger)
    ? null
    : `${at}: expected two whole numbers`;

/** What a date can be. */
const time = between(0, 8.64e15);
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

/** What a topic shows, if it is `control:{tenant}`. */
export const control = struct({
  version: count,
  paused: flag,
  settings: mapOf(any),
  modes: listOf(text),
  announcements: mapOf(struct({ announcement_id: text, audience: text, text, at: time, expires_at: time })),
  nodes: mapOf(struct({ node: whole, version: count })),
});

/** The answer of `GET /v1/topics/{topic}`, by what the topic shows. @param {Check} data */
export const polled = (data) => struct({ topic: text, server_time: whole, data });

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

const outcome = struct({
  complete: flag,
  nodes: listOf(struct({ node: whole, status: text, after_ms: optional(number) })),
});
const changes = mapOf((value, at) => (isObject(value) && 'from' in value && 'to' in value ? null : `${at}: expected a change`));

/** @param {Record<string, Check>} fields @returns {Check} an outcome, and these */
const withOutcome = (fields) => (value, at) => outcome(value, at) ?? struct(fields)(value, at);

/** The answer to a command. */
export const controlled = withOutcome({ command: text, number: count, version: optional(count), changes: optional(changes) });

/** The answer of `GET /v1/settings`. */
export const settings = struct({ version: count, paused: flag, settings: mapOf(any), defaults: mapOf(any), modes: listOf(text) });

/** The answer of `GET /v1/control` and of `GET /v1/settings/history`. */
export const log = struct({
  entries: listOf(
    struct({
      number: count,
      at: time,
      by: struct({ role: text, user: text }),
      command: text,
      data: mapOf(any),
      version: nullable(count),
      changes,
      outcome: nullable(outcome),
    }),
  ),
  next: nullable(count),
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

const failure = struct({ code: text, message: text, retry: flag, data: optional(mapOf(any)) });

/** The answer of a REST call that was refused. */
export const refused = struct({ error: failure });

const reply = struct({ ok: flag, data: optional(mapOf(any)), error: optional(failure) });
const patch = struct({ set: optional(mapOf(any)), del: optional(listOf(text)) });
const snapshotFrame = struct({ topic: text, version, server_time: whole, data: mapOf(any) });
const deltaFrame = struct({ topic: text, from: version, version, server_time: whole, data: patch });

/** What is wrong with what a topic shows; of topics that are not known: nothing. @param {{topic: string, data: unknown}} frame */
function shown({ topic, data }) {
  if (topic.startsWith('board:')) return board(data, 'snapshot.data');
  return topic.startsWith('control:') ? control(data, 'snapshot.data') : null;
}

/**
 * What is wrong with a frame from the socket. Frames of kinds that are not known are fine, and nobody's business.
 * @param {unknown} value
 * @returns {string | null}
 */
export function frame(value) {
  if (!isObject(value)) return 'frame: expected an object';
  if ('re' in value) return reply(value, 'reply');
  if (value.type === 'snapshot') return snapshotFrame(value, 'snapshot') ?? shown(/** @type {any} */ (value));
  if (value.type === 'delta') return deltaFrame(value, 'delta');
  return text(value.type, 'frame.type');
}
