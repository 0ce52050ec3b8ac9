/**
 * What became of a command, in words: how the nodes have answered, and why the server said no.
 *
 * @typedef {import('./check.js').Outcome} Outcome
 * @typedef {import('./command.js').Command} Command
 */

import { countdown } from './clock.js';
import { TRIES } from './command.js';
import { counted } from './format.js';

/** `node 3`, `nodes 2 and 3`. @param {number[]} numbers */
export const nodesOf = (numbers) =>
  numbers.length === 1 ? `node ${numbers[0]}` : `nodes ${numbers.slice(0, -1).join(', ')} and ${numbers.at(-1)}`;

/** @param {string} words */
export const sentence = (words) => `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;

/** @param {Outcome} outcome @param {string} status @returns {number[]} */
export const nodesThatAre = (outcome, status) =>
  outcome.nodes.filter((each) => each.status === status).map((each) => each.node);

/** The nodes of one answer, one by one. @param {Outcome} outcome @returns {string[]} */
export function eachNode(outcome) {
  /** @type {Record<string, string>} */
  const words = { gone: 'gone before it could', silent: 'did not answer in time', refused: 'would have been the last' };
  return outcome.nodes.map(({ node, status, after_ms: afterMs }) => {
    if (status === 'acked') return `node ${node}: followed${afterMs === undefined || afterMs === null ? '' : ` after ${Math.ceil(afterMs)} ms`}`;
    return `node ${node}: ${words[status] ?? status}`;
  });
}

/**
 * What an answer says of those that have not followed. `control` tells what has become of them since.
 * @param {Outcome} outcome @param {number} version @param {import('./control.js').Control} control
 */
export function notFollowed(outcome, version, control) {
  const gone = nodesThatAre(outcome, 'gone');
  const silent = nodesThatAre(outcome, 'silent');
  const nodes = control.content?.nodes ?? {};
  const since = silent.filter((node) => (nodes[node]?.version ?? -1) >= version);
  const left = silent.filter((node) => !nodes[node]);
  const still = silent.filter((node) => !since.includes(node) && !left.includes(node));
  const said = [];
  if (gone.length) said.push(`${nodesOf(gone)} ${gone.length === 1 ? 'is' : 'are'} gone: the others go on without`);
  if (still.length) said.push(`${nodesOf(still)} did not answer in time, and will follow`);
  if (since.length) said.push(`${nodesOf(since)} did not answer in time, and ${since.length === 1 ? 'has' : 'have'} followed since`);
  if (left.length) said.push(`${nodesOf(left)} did not answer, and ${left.length === 1 ? 'is' : 'are'} gone now`);
  return said.map(sentence).join(' ');
}

/** Why the server said no. @param {Command} command */
function refusal({ failure, answeredAt }) {
  const { code = '', message = '', data } = failure ?? {};
  const node = data?.node;
  switch (code) {
    case 'LAST_NODE':
      return `Node ${node} is the last one: no other could go on for it. Start another first.`;
    case 'NODE_NOT_FOUND':
      return `Node ${node} is not alive any more: there is nothing to drain.`;
    case 'FORBIDDEN':
      return 'Your role may not do this.';
    case 'TOO_MANY_ANNOUNCEMENTS': {
      const waitMs = answeredAt + Number(data?.retry_after_ms) - Date.now();
      if (!(waitMs > 0)) return 'There were too many announcements. The next one may be made now.';
      return `Too many announcements: the next one may be made in ${countdown(waitMs)}.`;
    }
    default:
      return message ? `${message} (${code})` : `The server said no (${code}).`;
  }
}

/**
 * What there is to say of a command, but for its good end; empty: nothing.
 * @param {Command} command
 */
export function trouble(command) {
  const { phase, tries } = command;
  if (phase === 'again') return `No answer to ${counted(tries, 'try', 'tries')} yet. The same command is sent again, and happens once.`;
  if (phase === 'given_up') {
    return `No answer came to ${counted(TRIES, 'try', 'tries')}. It may have happened or not: what is shown is what the server says.`;
  }
  return phase === 'refused' ? refusal(command) : '';
}
