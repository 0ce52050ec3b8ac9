/**
 * A list of what operators have commanded, newest first: which settings were changed, or everything.
 *
 * 1. It is asked for while somebody looks at it, and again when the tenant's version has changed; pages that were asked
 *    for before stay.
 * 2. How the nodes have answered is noted a moment after the version has changed: the newest entries are asked about
 *    again until that is known, a few times.
 *
 * @typedef {import('./check.js').LogEntry} LogEntry
 */

import { Refused } from './api.js';
import { log as checkLog } from './check.js';
import { dateTime } from './clock.js';
import { arrange, byId, el, setAttribute, setHidden, setText } from './dom.js';
import { words } from './format.js';
import { saidChanges } from './labels.js';
import { eachNode } from './outcome.js';

const PAGE = 20;
const OUTCOME_AFTER_MS = 1_000;
const OUTCOME_TRIES = 7;

/** @type {Record<string, string>} */
const COMMANDS = {
  pause: 'paused dispatch',
  resume: 'resumed dispatch',
  reload_settings: 'had the settings applied anew',
  switch_mode: 'switched the mode',
  patch_settings: 'changed settings',
  announce: 'announced',
  drain_node: 'drained a node',
};

/** What was asked, where what it changed does not say it. @param {LogEntry} entry */
function asked({ command, data }) {
  if (command === 'announce') return `to every ${data.audience}: “${data.text}”`;
  if (command === 'drain_node') return `node ${data.node}`;
  if (Object.hasOwn(COMMANDS, command)) return '';
  return JSON.stringify(data);
}

/** @param {LogEntry} entry @param {import('./clock.js').Clock} clock */
function entryItem(entry, clock) {
  const lines = [asked(entry), ...saidChanges(entry.changes)].filter(Boolean);
  const nodes = entry.outcome ? eachNode(entry.outcome) : ['how the nodes have answered is not known yet'];
  const version = entry.version === null ? '' : `version ${entry.version}`;
  return el(
    'li',
    { class: 'entry', 'data-entry': entry.number, 'data-complete': entry.outcome ? String(entry.outcome.complete) : null },
    el(
      'p',
      { class: 'entry-head' },
      el('b', {}, entry.by.user),
      ` (${entry.by.role}) ${COMMANDS[entry.command] ?? words(entry.command)} `,
      el('time', {}, dateTime(clock.local(entry.at))),
      version ? ` · ${version}` : '',
    ),
    lines.length ? el('ul', { class: 'entry-changes' }, ...lines.map((line) => el('li', {}, line))) : null,
    el('p', { class: 'entry-nodes' }, nodes.join(' · ')),
  );
}

export class Ledger {
  /** @type {LogEntry[]} */ #entries = [];
  /** @type {number | null} */ #next = null;
  #known = false;
  #problem = '';
  #asking = false;
  /** The version at which it was last asked for. */ #askedAt = -1;
  #again = false;
  #tries = 0;
  #dirty = true;
  /** @type {WeakMap<LogEntry, HTMLElement>} */ #items = new WeakMap();
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer = undefined;
  #path; #id; #api; #clock; #listener;

  /**
   * @param {string} path @param {string} id of the element it is in
   * @param {import('./api.js').Api} api @param {import('./clock.js').Clock} clock
   * @param {{touched: () => void, bad: (why: string) => void, refused: (why: string) => void}} listener
   */
  constructor(path, id, api, clock, listener) {
    this.#path = path;
    this.#id = id;
    this.#api = api;
    this.#clock = clock;
    this.#listener = listener;
    byId(`${id}-more`).addEventListener('click', () => this.#ask(this.#next));
  }

  /** Something was done, or may have been: what is shown may not be all any more. */
  expire() {
    this.#askedAt = -1;
    this.#listener.touched();
  }

  stop() {
    clearTimeout(this.#timer);
  }

  /** @param {boolean} looked whether somebody looks at it @param {number} version the tenant's */
  render(looked, version) {
    if (looked && version !== this.#askedAt && this.#timer === undefined) {
      this.#askedAt = version;
      this.#tries = 0;
      if (this.#asking) this.#again = true;
      else this.#ask(null);
    }
    if (!this.#dirty || !looked) return;
    this.#dirty = false;
    arrange(byId(`${this.#id}-list`), this.#entries.map((entry) => this.#itemOf(entry)));
    const nothing = this.#known && !this.#entries.length ? 'Nothing yet.' : '';
    setText(byId(`${this.#id}-note`), this.#problem || (this.#known ? nothing : 'Asking …'));
    setHidden(byId(`${this.#id}-more`), this.#next === null);
    setAttribute(byId(this.#id), 'aria-busy', String(this.#asking));
  }

  /** @param {LogEntry} entry */
  #itemOf(entry) {
    const item = this.#items.get(entry) ?? entryItem(entry, this.#clock);
    this.#items.set(entry, item);
    return item;
  }

  /** @param {number | null} before null: from the newest */
  async #ask(before) {
    if (this.#asking) return;
    this.#asking = true;
    this.#problem = '';
    try {
      const query = new URLSearchParams({ limit: String(PAGE), ...(before !== null && { before: String(before) }) });
      const { status, data } = await this.#api.get(`${this.#path}?${query}`);
      const wrong = status === 200 ? checkLog(data, 'log') : null;
      if (wrong !== null) this.#listener.bad(wrong);
      if (status === 200 && wrong === null) this.#take(/** @type {any} */ (data), before);
      else this.#problem = 'The list could not be read.';
    } catch (error) {
      if (error instanceof Refused) this.#listener.refused(error.message);
      this.#problem = 'The list cannot be reached.';
    }
    this.#asking = false;
    this.#dirty = true;
    if (this.#again) {
      this.#again = false;
      this.#ask(null);
    } else if (this.#problem || this.#entries.some((entry) => entry.outcome === null)) {
      this.#askLater();
    }
    this.#listener.touched();
  }

  #askLater() {
    if (this.#timer !== undefined || this.#tries >= OUTCOME_TRIES) return;
    this.#tries += 1;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#ask(null);
    }, OUTCOME_AFTER_MS);
  }

  /** @param {{entries: LogEntry[], next: number | null}} page @param {number | null} before */
  #take({ entries, next }, before) {
    this.#known = true;
    const last = entries.at(-1)?.number ?? 0;
    const newest = this.#entries[0]?.number ?? 0;
    if (before !== null) {
      this.#entries = [...this.#entries, ...entries];
      this.#next = next;
    } else if (next !== null && last <= newest) {
      this.#entries = [...entries, ...this.#entries.filter((entry) => entry.number < last)];
    } else {
      this.#entries = entries;
      this.#next = next;
    }
  }
}
