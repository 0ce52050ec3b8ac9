/**
 * The board by state: four columns of cards.
 *
 * 1. Each broadcast has an entry: its column, what sorts it, and (once it is shown) its card. Only entries whose
 *    broadcast has changed are looked at, and only columns that have such are sorted again.
 * 2. Live broadcasts are sorted by when they expire, the most urgent first; others by when they ended, the latest first.
 * 3. A column has at most `shown` cards in the page, whatever there are. Who wants more presses the button.
 * 4. Tab stops at one card of each column, the first or where the arrow keys were last; else the way to what comes after
 *    the board would lead over all of them.
 *
 * @typedef {import('./check.js').View} View
 * @typedef {import('./format.js').Column} Column
 * @typedef {{view: View, column: Column, rank: number, search: string | null, card: Card | null}} Entry
 */

import { Card } from './card.js';
import { arrange, byId, el, setHidden, setText } from './dom.js';
import { columnOf, counted, searchText } from './format.js';

const PAGE = 40;
/** @type {[Column, string, string][]} */
const COLUMNS = [
  ['searching', 'Searching', 'Nothing is being looked for'],
  ['partially_filled', 'Partly filled', 'None with trucks found and trucks missing'],
  ['fully_filled', 'Filled', 'None filled in the last ten minutes'],
  ['ended', 'Ended', 'None cancelled or expired in the last ten minutes'],
];

class ColumnView {
  /** @type {Set<Entry>} */ entries = new Set();
  dirty = true;
  shown = PAGE;
  /** @type {Entry[]} */ visible = [];
  /** Whose card Tab stops at. @type {Entry | null} */ stop = null;

  /** @param {Entry | null} entry */
  stopAt(entry) {
    this.stop = entry;
    for (const each of this.visible) each.card?.stop(each === entry);
  }

  /** @param {Column} state @param {string} name @param {string} nothing */
  constructor(state, name, nothing) {
    this.list = el('ul', { class: 'cards' });
    this.count = el('span', { class: 'column-count' });
    this.nothing = el('p', { class: 'nothing', hidden: true }, nothing);
    this.more = el('button', { type: 'button', class: 'more', hidden: true });
    this.skeleton = el(
      'div',
      { class: 'skeletons', 'data-skeleton': true, 'aria-hidden': 'true' },
      ...[0, 1, 2, 3].map(() => el('div', { class: 'skeleton' }, el('i'), el('i'), el('i'))),
    );
    const title = el('h3', { id: `column-${state}` }, el('span', { class: 'dot', 'aria-hidden': 'true' }), name, ' ', this.count);
    this.section = el(
      'section',
      { class: 'column', 'data-state': state, 'aria-labelledby': `column-${state}` },
      title,
      el('div', { class: 'column-body', tabindex: -1 }, this.skeleton, this.list, this.nothing, this.more),
    );
  }
}

export class Columns {
  /** @type {Map<string, Entry>} */ #entries = new Map();
  /** @type {Map<Column, ColumnView>} */ #columns = new Map();
  /** @type {string | null} */ #selected = null;
  /** @type {string[]} */ #wanted = [];

  /** @param {{select: (id: string) => void, touched: () => void}} listener */
  constructor(listener) {
    const host = byId('columns');
    for (const [state, name, nothing] of COLUMNS) {
      const column = new ColumnView(state, name, nothing);
      this.#columns.set(state, column);
      host.append(column.section);
      column.more.addEventListener('click', () => {
        column.shown += PAGE;
        column.dirty = true;
        listener.touched();
      });
    }
    host.addEventListener('click', (event) => {
      const card = /** @type {Element} */ (event.target).closest('[data-broadcast]');
      if (card) listener.select(/** @type {string} */ (card.getAttribute('data-broadcast')));
    });
    host.addEventListener('keydown', (event) => this.#onKey(event));
  }

  /** How many broadcasts each column has, whatever is searched for. @param {Column} state */
  size(state) {
    return this.#columns.get(state)?.entries.size ?? 0;
  }

  /** Show only what has all these words. @param {string} query */
  search(query) {
    this.#wanted = query.toLowerCase().split(/\s+/).filter(Boolean);
    for (const column of this.#columns.values()) {
      column.dirty = true;
      column.shown = PAGE;
    }
  }

  /** @param {string | null} id */
  select(id) {
    if (id === this.#selected) return;
    this.#entries.get(this.#selected ?? '')?.card?.select(false);
    this.#entries.get(id ?? '')?.card?.select(true);
    this.#selected = id;
  }

  /** Take in what has changed. @param {Set<string>} changed @param {Map<string, View>} broadcasts */
  take(changed, broadcasts) {
    for (const id of changed) {
      const view = broadcasts.get(id);
      const entry = this.#entries.get(id);
      const before = entry && this.#columns.get(entry.column);
      if (before) before.dirty = true;
      if (!view) {
        if (entry) before?.entries.delete(entry);
        this.#entries.delete(id);
        continue;
      }
      const column = columnOf(view.status);
      const rank = view.ended_at === null ? view.expires_at : -view.ended_at;
      const after = /** @type {ColumnView} */ (this.#columns.get(column));
      if (entry) {
        if (entry.column !== column) before?.entries.delete(entry);
        Object.assign(entry, { view, column, rank, search: null });
        after.entries.add(entry);
      } else {
        const made = { view, column, rank, search: null, card: null };
        this.#entries.set(id, made);
        after.entries.add(made);
      }
      after.dirty = true;
    }
  }

  /** @param {number} now the server's time @param {boolean} known whether the board is there at all */
  render(now, known) {
    const focused = /** @type {any} */ (document.activeElement);
    for (const column of this.#columns.values()) {
      if (column.dirty && known) this.#arrange(column);
      for (const entry of column.visible) entry.card?.update(entry.view, now);
      if (known) column.skeleton.remove();
    }
    if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  }

  /** @param {ColumnView} column */
  #arrange(column) {
    column.dirty = false;
    const found = [...column.entries].filter((entry) => this.#matches(entry));
    found.sort((one, other) => one.rank - other.rank || (one.view.broadcast_id < other.view.broadcast_id ? -1 : 1));
    const visible = found.slice(0, column.shown);
    const kept = new Set(visible);
    for (const entry of column.visible) {
      if (!kept.has(entry) && column.entries.has(entry)) entry.card = null; // one in another column takes its card along
    }
    for (const entry of visible) {
      if (entry.card) continue;
      entry.card = new Card(entry.view.broadcast_id);
      entry.card.select(entry.view.broadcast_id === this.#selected);
    }
    column.visible = visible;
    column.stopAt(column.stop && kept.has(column.stop) ? column.stop : visible[0] ?? null);
    arrange(column.list, visible.map((entry) => /** @type {Card} */ (entry.card).item));
    const total = column.entries.size;
    setText(column.count, this.#wanted.length ? `${found.length} of ${total}` : total.toLocaleString('en'));
    setHidden(column.nothing, found.length > 0);
    setHidden(column.more, found.length <= visible.length);
    setText(column.more, `Show more, ${counted(found.length - visible.length, 'is', 'are')} not shown`);
  }

  /** @param {Entry} entry */
  #matches(entry) {
    if (!this.#wanted.length) return true;
    entry.search ??= searchText(entry.view);
    const text = entry.search;
    return this.#wanted.every((word) => text.includes(word));
  }

  /** Arrow keys go from card to card, and from column to column. @param {KeyboardEvent} event */
  #onKey(event) {
    const card = /** @type {Element} */ (event.target).closest('.card');
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    const sides = { ArrowRight: 1, ArrowLeft: -1 };
    if (!card) return;
    /** @type {any} */
    let next = null;
    if (event.key in steps) {
      const item = card.parentElement;
      next = (event.key === 'ArrowDown' ? item?.nextElementSibling : item?.previousElementSibling)?.firstElementChild;
    } else if (event.key in sides) {
      const sections = [...this.#columns.values()].filter((column) => column.visible.length);
      const at = sections.findIndex((column) => column.section.contains(card));
      next = sections[at + sides[/** @type {'ArrowLeft'} */ (event.key)]]?.stop?.card?.button;
    }
    if (!next) return;
    event.preventDefault();
    const entry = this.#entries.get(next.getAttribute('data-broadcast'));
    if (entry) this.#columns.get(entry.column)?.stopAt(entry);
    next.focus();
  }
}
