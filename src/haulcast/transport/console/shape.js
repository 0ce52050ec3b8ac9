/**
 * What checks are made of.
 *
 * 1. A check takes a value and says what is wrong with it, as text with the path, or `null` if nothing is.
 * 2. Fields that are not known are let pass: servers may add some. Known ones must have their shape and type.
 * 3. Nothing here repairs anything.
 *
 * @typedef {(value: unknown, at: string) => string | null} Check
 */

/** Anything that JSON can say. @type {Check} */
export const any = () => null;

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
