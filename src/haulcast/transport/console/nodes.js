/**
 * The nodes of the cluster, as they report themselves: asked for every 5 s while somebody looks.
 *
 * What is wrong with a node is said in words. One that does not answer has said nothing else. One that is not listed any
 * more stays for ten minutes, as gone: whether that was meant, the viewer knows.
 *
 * @typedef {{node: number, answered: false}} Silent
 * @typedef {{node: number, answered: true, active_broadcasts: number, lease_age_ms: number, lease_ttl_ms: number,
 *   loop_lag_ms: number, draining: boolean}} Answer
 * @typedef {{node: number, goneAt: number}} Gone  by this machine's clock
 * @typedef {Silent | Answer} NodeReport
 */

import { Refused } from './api.js';
import { nodes as checkNodes } from './check.js';
import { clockTime } from './clock.js';
import { arrange, byId, el, setAttribute, setHidden, setText } from './dom.js';

const EVERY_MS = 5_000;
const LAGGING_MS = 100;
const GONE_SHOWN_MS = 600_000;

/** What is wrong with a node, worst first. @param {NodeReport} report */
export function troubles(report) {
  if (!report.answered) return ['does not answer'];
  const found = [];
  if (report.lease_age_ms >= report.lease_ttl_ms) found.push('lease lost');
  else if (report.lease_age_ms > report.lease_ttl_ms / 2) found.push('lease late');
  if (report.loop_lag_ms > LAGGING_MS) found.push('slow');
  if (report.draining) found.push('draining');
  return found;
}

class NodeRow {
  #facts = el('span', { class: 'node-facts' });
  #trouble = el('span', { class: 'node-trouble' });
  #mark = el('span', { class: 'node-mark', 'aria-hidden': 'true' });

  #button; #drain;

  /** @param {number} number @param {import('./drain.js').Drain | null} drain null: this viewer may not */
  constructor(number, drain) {
    this.#drain = drain;
    this.#button = el('button', { type: 'button', class: 'node-drain', 'aria-label': `Drain node ${number} …` }, 'Drain …');
    this.#button.addEventListener('click', () => drain?.ask(number));
    this.item = el(
      'li',
      { class: 'node', 'data-node': number },
      this.#mark,
      el('b', {}, `Node ${number}`),
      this.#trouble,
      this.#facts,
      drain ? this.#button : null,
    );
  }

  /** @param {boolean} connected */
  enable(connected) {
    if (this.#drain) setAttribute(this.#button, 'aria-disabled', this.#drain.enable(connected) ? null : 'true');
  }

  /** @param {NodeReport | Gone} report */
  update(report) {
    const facts = [];
    setHidden(this.#button, 'goneAt' in report || (report.answered && report.draining));
    if ('goneAt' in report) {
      setText(this.#facts, '');
      setText(this.#trouble, `gone since ${clockTime(report.goneAt)}`);
      setText(this.#mark, '▲');
      setAttribute(this.item, 'data-health', 'unhealthy');
      return;
    }
    if (report.answered) {
      facts.push(`${report.active_broadcasts.toLocaleString('en')} active`);
      facts.push(`lease ${report.lease_age_ms} ms old`, `lag ${report.loop_lag_ms.toFixed(1)} ms`);
    }
    const wrong = troubles(report);
    setText(this.#facts, facts.join(' · '));
    setText(this.#trouble, wrong.join(', '));
    setText(this.#mark, wrong.length ? '▲' : '●');
    setAttribute(this.item, 'data-health', wrong.length ? 'unhealthy' : 'ok');
  }
}

export class Nodes {
  /** @type {Map<number, NodeRow>} */ #rows = new Map();
  /** @type {NodeReport[]} */ #reports = [];
  /** Who was in the last answer. @type {Set<number>} */ #listed = new Set();
  /** @type {Map<number, Gone>} */ #gone = new Map();
  #note = 'Asking the nodes …';
  #list = byId('nodes-list');
  #noteHost = byId('nodes-note');
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer = undefined;
  #asking = false;
  #stopped = false;
  #dirty = true;

  /**
   * @param {import('./api.js').Api} api @param {import('./drain.js').Drain | null} drain null: this viewer may not
   * @param {{touched: () => void, bad: (why: string) => void, refused: (why: string) => void}} listener
   */
  constructor(api, drain, listener) {
    this.api = api;
    this.drain = drain;
    this.listener = listener;
    document.addEventListener('visibilitychange', () => document.hidden || this.ask());
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async ask() {
    if (this.#asking || this.#stopped || document.hidden) return;
    clearTimeout(this.#timer);
    this.#asking = true;
    try {
      const answer = await this.api.get('v1/nodes');
      if (answer.status === 200) this.#take(answer.data);
      else this.#say([], `The nodes could not be asked (${answer.status}).`);
    } catch (error) {
      if (error instanceof Refused) this.listener.refused(error.message);
      else this.#say([], 'The nodes cannot be reached.');
    }
    this.#asking = false;
    if (!this.#stopped) this.#timer = setTimeout(() => this.ask(), EVERY_MS);
  }

  /** @param {any} data */
  #take(data) {
    const wrong = checkNodes(data, 'nodes');
    if (wrong !== null) {
      this.listener.bad(wrong);
      this.#say([], 'The nodes’ answer could not be read.');
      return;
    }
    this.#miss(data.nodes);
    this.#say(data.nodes, data.nodes.length ? '' : 'No node reports.');
  }

  /** Take note of those that are not listed any more. @param {NodeReport[]} reports */
  #miss(reports) {
    const goneAt = Date.now();
    for (const node of this.#listed) this.#gone.set(node, { node, goneAt }); // those that are still there go again below
    this.#listed = new Set(reports.map((report) => report.node));
    for (const gone of [...this.#gone.values()]) {
      if (this.#listed.has(gone.node) || goneAt - gone.goneAt > GONE_SHOWN_MS) this.#gone.delete(gone.node);
    }
  }

  /** @param {NodeReport[]} reports @param {string} note */
  #say(reports, note) {
    this.#reports = [...reports].sort((one, other) => one.node - other.node);
    this.#note = note;
    this.#dirty = true;
    this.listener.touched();
  }

  /** @param {boolean} connected */
  render(connected) {
    this.#renderRows();
    setText(byId('drain-status'), this.drain?.words ?? '');
    for (const row of this.#rows.values()) row.enable(connected);
  }

  #renderRows() {
    if (!this.#dirty) return;
    this.#dirty = false;
    const rows = new Map();
    for (const report of [...this.#reports, ...(this.#reports.length ? this.#gone.values() : [])]) {
      const row = this.#rows.get(report.node) ?? new NodeRow(report.node, this.drain);
      row.update(report);
      rows.set(report.node, row);
    }
    this.#rows = rows;
    arrange(this.#list, [...rows.values()].map((row) => row.item));
    setText(this.#noteHost, this.#note);
  }
}
