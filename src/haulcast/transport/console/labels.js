/**
 * How settings are called and written. Those that are not known here, of a later server, go by their own names, and by
 * what JSON says of their values.
 *
 * @typedef {'number' | 'optional' | 'flag' | 'text' | 'choice' | 'radii' | 'json'} Kind  optional: a number, or null
 * @typedef {{label: string, unit?: string, kind?: Kind, empty?: string, hint?: string, choices?: Record<string, string>}} Known
 */

import { counted, words } from './format.js';

const EVERYBODY = 'everybody';
const SERVERS_OWN = 'the server’s own';

/** @type {Record<string, Known>} */
const KNOWN = {
  paused: { label: 'Paused', kind: 'flag' },
  dispatch_mode: { label: 'Dispatch mode', kind: 'choice' },
  wave_radii_km: { label: 'Wave radii', unit: 'km', kind: 'radii', hint: `one for each wave, with commas; ${EVERYBODY} may come last` },
  wave_interval_s: { label: 'Wave interval', unit: 's' },
  max_offers_per_wave: { label: 'Most offers in a wave' },
  accept_window_s: { label: 'Accept window', unit: 's' },
  default_expiry_s: { label: 'Expiry if none is asked for', unit: 's' },
  min_expiry_s: { label: 'Shortest expiry', unit: 's' },
  max_expiry_s: { label: 'Longest expiry', unit: 's' },
  reminder_lead_s: { label: 'Reminder before the expiry', unit: 's' },
  active_broadcast_policy: {
    label: 'A customer’s second broadcast',
    kind: 'choice',
    choices: { reject: 'is refused', replace: 'replaces the first' },
  },
  toggle_limit: { label: 'Most switches on- and offline' },
  toggle_window_s: { label: 'Switches are counted over', unit: 's' },
  requests_per_s: { label: 'Requests of a phone, per second', kind: 'optional', empty: SERVERS_OWN },
  request_burst: { label: 'Requests of a phone, at once', kind: 'optional', empty: SERVERS_OWN },
  announcements_per_hour: { label: 'Most announcements in an hour' },
};

/** @param {string} name @returns {Known} */
const known = (name) => (Object.hasOwn(KNOWN, name) ? KNOWN[name] : { label: name });

/** @param {string} name */
export const labelOf = (name) => known(name).label;

/** What is said of a field beside its name. @param {string} name */
export function hintOf(name) {
  const { hint, empty } = known(name);
  return hint ?? (empty ? `empty: ${empty}` : '');
}

/** @param {string} name */
export const unitOf = (name) => known(name).unit ?? '';

/** How a setting is edited. @param {string} name @param {unknown} value one that it has @returns {Kind} */
export function kindOf(name, value) {
  const { kind } = known(name);
  if (kind === 'radii' && !Array.isArray(value)) return 'json';
  if (kind) return kind;
  if (typeof value === 'number') return 'number';
  if (typeof value === 'boolean') return 'flag';
  return typeof value === 'string' ? 'text' : 'json';
}

/** What can be chosen: by value, how it is said. @param {string} name @param {string[]} modes @param {unknown} value */
export function choicesOf(name, modes, value) {
  const choices = name === 'dispatch_mode' ? Object.fromEntries(modes.map((mode) => [mode, words(mode)])) : known(name).choices ?? {};
  const own = String(value);
  return Object.hasOwn(choices, own) ? choices : { ...choices, [own]: words(own) };
}

/** What stands in the field. @param {Kind} kind @param {unknown} value */
export function printed(kind, value) {
  if (kind === 'radii' && Array.isArray(value)) return value.map((radius) => radius ?? EVERYBODY).join(', ');
  if (kind === 'json' || (typeof value === 'object' && value !== null)) return JSON.stringify(value);
  return String(value ?? '');
}

/**
 * What is meant by what stands in a field. Whether it may be so the server says.
 * @param {Kind} kind @param {string} text @returns {{value: unknown} | {problem: string}}
 */
export function parsed(kind, text) {
  const bare = text.trim();
  const number = bare === '' ? NaN : Number(bare);
  switch (kind) {
    case 'optional':
      if (bare === '') return { value: null };
      return Number.isFinite(number) ? { value: number } : { problem: 'expected a number, or nothing' };
    case 'number':
      return Number.isFinite(number) ? { value: number } : { problem: 'expected a number' };
    case 'flag':
      return { value: bare === 'true' };
    case 'radii': {
      const radii = bare.split(',').map((part) => (part.trim().toLowerCase() === EVERYBODY ? null : part.trim() === '' ? NaN : Number(part)));
      return radii.every((radius) => radius === null || Number.isFinite(radius))
        ? { value: radii }
        : { problem: `expected numbers with commas between them, and perhaps “${EVERYBODY}” at the end` };
    }
    case 'json':
      try {
        return { value: JSON.parse(bare) };
      } catch {
        return { problem: 'expected JSON' };
      }
    default:
      return { value: text };
  }
}

/** A value in words. @param {string} name @param {unknown} value */
export function said(name, value) {
  const { unit, kind, choices, empty } = known(name);
  if (value === null) return empty ?? 'nothing';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (Array.isArray(value) && kind === 'radii') return `${printed('radii', value)} ${unit}`;
  if (typeof value === 'object') return JSON.stringify(value);
  if (typeof value === 'string') return choices?.[value] ?? (kind === 'choice' ? words(value) : value || 'nothing');
  return `${value}${unit ? ` ${unit}` : ''}`;
}

/** `Wave interval: 15 s → 20 s`. @param {string} name @param {{from: unknown, to: unknown}} change */
export const saidChange = (name, { from, to }) => `${labelOf(name)}: ${said(name, from)} → ${said(name, to)}`;

/** @param {import('./check.js').Changes} changes @returns {string[]} */
export const saidChanges = (changes) => Object.entries(changes).map(([name, change]) => saidChange(name, change));

/** @param {number} number */
export const countedChanges = (number) => counted(number, 'change');
