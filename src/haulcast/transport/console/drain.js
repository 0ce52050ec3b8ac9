/**
 * Having a node hand over its broadcasts and stop: for admins, one node at a time, after a question.
 *
 * What is said is that the node was told to, and that it has taken it. That it drains, and is gone, the nodes' own
 * reports say.
 */

import { Command } from './command.js';
import { confirmed } from './confirm.js';
import { nodesThatAre, trouble } from './outcome.js';

export class Drain {
  #command; #listener;
  #enabled = false;
  #node = 0;

  /** @param {import('./api.js').Api} api @param {ConstructorParameters<typeof Command>[1]} listener */
  constructor(api, listener) {
    this.#command = new Command(api, listener);
    this.#listener = listener;
  }

  get busy() {
    return this.#command.busy;
  }

  /** Whether a node can be drained now. @param {boolean} connected */
  enable(connected) {
    this.#enabled = connected && !this.busy;
    return this.#enabled;
  }

  /** @param {number} node */
  async ask(node) {
    if (!this.#enabled) return;
    const question = {
      title: `Drain node ${node}?`,
      text: 'It takes no more connections, hands its broadcasts over to the other nodes, and ends. It does not start again by itself.',
      yes: `Drain node ${node}`,
    };
    if (!(await confirmed(question)) || !this.#enabled) return;
    this.#node = node;
    await this.#command.give({ name: 'drain_node', verb: 'Draining', method: 'POST', path: 'v1/control/drain_node', body: { node } });
    this.#listener.touched();
  }

  /** What there is to say of the last one. */
  get words() {
    const { phase, answer } = this.#command;
    if (phase === 'sending') return `Draining node ${this.#node} …`;
    if (phase !== 'answered' || !answer) return trouble(this.#command);
    if (nodesThatAre(answer, 'gone').length) return `Node ${this.#node} is gone.`;
    if (nodesThatAre(answer, 'silent').length) return `Node ${this.#node} has not answered yet. It will drain when it does.`;
    return `Node ${this.#node} has begun to drain.`;
  }
}
