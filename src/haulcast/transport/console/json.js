/** What is done with any JSON: changing it in a place, as deltas do, and saying what differs. */

/** The keys of a JSON Pointer (RFC 6901). @param {string} pointer */
export function keysOf(pointer) {
  if (pointer === '') return [];
  if (!pointer.startsWith('/')) throw new Error(`${pointer}: not a JSON Pointer`);
  return pointer
    .slice(1)
    .split('/')
    .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'));
}

/**
 * Put a value at a place within an object, or remove it (`undefined`). All objects on the way must exist.
 * @param {any} target @param {string[]} keys @param {unknown} value
 */
export function put(target, keys, value) {
  let inner = target;
  const last = keys[keys.length - 1];
  for (const key of keys.slice(0, -1)) {
    if (!Object.hasOwn(inner, key)) throw new Error(`${key}: there is no such place`);
    inner = inner[key];
    if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) throw new Error(`${key}: not an object`);
  }
  if (last === '__proto__') throw new Error('a key that cannot be');
  if (value === undefined) delete inner[last];
  else inner[last] = value;
}

/** Whether two values are the same as JSON. @param {unknown} one @param {unknown} other */
export const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/**
 * What differs between two sets of settings, by name.
 * @param {Record<string, unknown>} before @param {Record<string, unknown>} after @returns {import('./check.js').Changes}
 */
export function differences(before, after) {
  /** @type {import('./check.js').Changes} */
  const found = {};
  for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
    if (!same(before[name], after[name])) found[name] = { from: before[name] ?? null, to: after[name] ?? null };
  }
  return found;
}
