/**
 * What is to be done when a connection ends, by its close code (docs/protocol.md, section 9).
 *
 * Codes of 40xx: do not come back unchanged. 41xx: come back after a while, a second at least and doubling. 42xx: come
 * back at once, or when told. Any other, and none: come back after a short wait that doubles. A code of these ranges
 * that is not known is treated by its range.
 *
 * @typedef {{then: 'sign_in' | 'stay_away', why: string} | {then: 'come_back', afterMs: number}} Rule
 */

const SHORTEST_MS = 500;
const LONGEST_MS = 30_000;
const WHILE_MS = 1_000;
/** A server that stops has all its clients come back: not all in the same instant. */
const SPREAD_MS = 300;

/** @type {Record<number, Rule>} */
const FINAL = {
  4001: { then: 'sign_in', why: 'The server does not accept this token: it has expired, or is not valid here.' },
  4003: {
    then: 'sign_in',
    why: 'The server does not take this page’s origin, or the tenant of the token does not exist.',
  },
  4009: { then: 'stay_away', why: 'This user has five newer connections open, and no more are allowed.' },
};

/** A wait with chance in it, which doubles from failure to failure. @param {number} failures @param {number} [least] */
export function backoff(failures, least = SHORTEST_MS) {
  const longest = Math.min(LONGEST_MS, least * 2 ** Math.max(0, failures - 1));
  return least + Math.random() * longest;
}

/**
 * @param {number} code @param {string} reason @param {number} failures how often in a row, with this one, it went wrong
 * @returns {Rule}
 */
export function ruleOf(code, reason, failures) {
  if (code in FINAL) return FINAL[code];
  if (code >= 4000 && code < 4100) {
    return { then: 'stay_away', why: `The server closed the connection for good (${code}).` };
  }
  if (code >= 4100 && code < 4200) return { then: 'come_back', afterMs: backoff(failures, WHILE_MS) };
  if (code >= 4200 && code < 4300 && failures <= 1) {
    const told = /retry_in_s=(\d+)/.exec(reason);
    const seconds = told ? Math.min(60, Number(told[1])) : 0;
    return { then: 'come_back', afterMs: seconds * 1000 + Math.random() * SPREAD_MS };
  }
  return { then: 'come_back', afterMs: backoff(failures) };
}
