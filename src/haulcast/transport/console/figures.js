/**
 * The row of totals and small charts above the board.
 *
 * Each chart is one path of SVG, drawn anew at most once a second, with what it shows as text for those who cannot see it.
 */

import { byId, el, setAttribute, setText, svg } from './dom.js';

const WIDTH = 120;
const HEIGHT = 30;
const EVERY_MS = 1000;

/** @typedef {(value: number) => string} Say */
const rate = (/** @type {number} */ value) => (value >= 10 ? value.toFixed(0) : value.toFixed(1));
const seconds = (/** @type {number} */ value) => (value < 9_950 ? `${(value / 1000).toFixed(1)} s` : `${Math.round(value / 1000)} s`);
const percent = (/** @type {number} */ value) => `${Math.round(value * 100)} %`;
const whole = (/** @type {number} */ value) => value.toLocaleString('en');

/** @type {[keyof import('./stats.js').Figures, string, string, Say, number][]} what, its name, of when, how, least top */
const CHARTS = [
  ['live', 'Live broadcasts', 'now', whole, 4],
  ['offers', 'Offers per second', 'last minute', rate, 1],
  ['accepts', 'Accepts per second', 'last minute', rate, 1],
  ['first', 'Median time to first accept', '10 minutes', seconds, 1000],
  ['filled', 'Fill rate', 'ended in 10 minutes', percent, 1],
];

class Chart {
  /** @param {string} name @param {string} when @param {Say} say @param {number} leastTop */
  constructor(name, when, say, leastTop) {
    this.name = name;
    this.say = say;
    this.leastTop = leastTop;
    this.area = svg('path', { class: 'area' });
    this.line = svg('path', { class: 'line' });
    this.value = el('span', { class: 'figure-value' }, '–');
    this.plot = svg(
      'svg',
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', class: 'plot' },
      this.area,
      this.line,
    );
    this.host = el(
      'div',
      { class: 'figure' },
      el('span', { class: 'figure-name' }, name),
      el('span', { class: 'figure-now' }, this.value, el('span', { class: 'figure-when' }, when)),
    );
    this.host.append(this.plot);
  }

  /** @param {import('./stats.js').Figure} figure */
  draw({ now, series }) {
    setText(this.value, now === null ? '–' : this.say(now));
    const known = /** @type {number[]} */ (series.filter((value) => value !== null));
    const top = Math.max(this.leastTop, ...known);
    let line = '';
    let area = '';
    let begun = -1;
    series.forEach((value, index) => {
      const x = ((index / (series.length - 1)) * WIDTH).toFixed(1);
      if (value !== null) {
        const y = (HEIGHT - 2 - (value / top) * (HEIGHT - 5)).toFixed(1);
        line += `${begun < 0 ? 'M' : 'L'}${x} ${y}`;
        area += `${begun < 0 ? `M${x} ${HEIGHT}L` : 'L'}${x} ${y}`;
        if (begun < 0) begun = index;
      }
      if (begun >= 0 && (value === null || index === series.length - 1)) {
        area += `L${(((value === null ? index - 1 : index) / (series.length - 1)) * WIDTH).toFixed(1)} ${HEIGHT}Z`;
        begun = -1;
      }
    });
    setAttribute(this.line, 'd', line);
    setAttribute(this.area, 'd', area);
    const range = known.length
      ? `from ${this.say(Math.min(...known))} to ${this.say(Math.max(...known))}`
      : 'nothing known yet';
    setAttribute(this.plot, 'aria-label', `${this.name} over the last ten minutes: ${range}`);
  }
}

/** @type {import('./format.js').Column[]} */
const STATES = ['searching', 'partially_filled', 'fully_filled', 'ended'];

export class FiguresView {
  /** @type {Map<string, Chart>} */ #charts = new Map();
  #drawnAt = -Infinity;

  /** @param {(state: string) => void} show brings a column into view */
  constructor(show) {
    const host = byId('charts');
    for (const [what, name, when, say, leastTop] of CHARTS) {
      const chart = new Chart(name, when, say, leastTop);
      this.#charts.set(what, chart);
      host.append(chart.host);
    }
    for (const state of STATES) byId(`total-${state}`).addEventListener('click', () => show(state));
  }

  /**
   * @param {{size: (state: import('./format.js').Column) => number}} columns
   * @param {() => import('./stats.js').Figures} figures
   */
  render(columns, figures) {
    for (const state of STATES) setText(byId(`total-${state}`).querySelector('strong'), columns.size(state).toLocaleString('en'));
    const live = columns.size('searching') + columns.size('partially_filled');
    setText(/** @type {Chart} */ (this.#charts.get('live')).value, whole(live)); // as the totals beside it
    const now = performance.now();
    if (now - this.#drawnAt < EVERY_MS) return;
    this.#drawnAt = now;
    const all = figures();
    for (const [what, chart] of this.#charts) chart.draw(all[/** @type {'live'} */ (what)]);
  }
}
