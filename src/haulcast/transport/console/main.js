/**
 * The operator console: signs in, wires the parts together, and draws them.
 *
 * Data flows one way: the link changes the board, the scheduler calls `render`, and `render` shows what the board has.
 * Nobody else touches the page, but for the form that signs in.
 */

import { Api } from './api.js';
import { Board } from './board.js';
import { config as checkConfig } from './check.js';
import { Clock, clockTime } from './clock.js';
import { Columns } from './columns.js';
import { Control } from './control.js';
import { Details } from './details.js';
import { byId, setAttribute, setHidden, setText } from './dom.js';
import { FiguresView } from './figures.js';
import { counted } from './format.js';
import { Inquiry } from './inquiry.js';
import { Link, ROLES } from './link.js';
import { MapView } from './map.js';
import { Nodes } from './nodes.js';
import { Panel } from './panel.js';
import { Scheduler } from './scheduler.js';
import * as session from './session.js';
import { Stats } from './stats.js';
import { themed } from './theme.js';

const BEAT_MS = 1000;
const MAP_EVERY_MS = 1000;

/** Where one view at a time is shown. */
const narrow = matchMedia('(max-width: 859px)');

class App {
  #clock = new Clock();
  #board = new Board();
  #control = new Control();
  #stats = new Stats();
  /** @type {string | null} */ #selected = null;
  /** The map is the dearest to draw: what the viewer does is shown at once, data once a second.
   * @type {'no' | 'soon' | 'now'} */
  #mapDirty = 'now';
  #mapDrawnAt = -Infinity;

  /** @param {import('./session.js').Session} who @param {(why: string) => void} refused */
  constructor(who, refused) {
    this.scheduler = new Scheduler(() => this.render());
    const touched = () => {
      this.#mapDirty = 'now';
      this.scheduler.now();
    };
    const changed = () => {
      if (this.#mapDirty === 'no') this.#mapDirty = 'soon';
      this.scheduler.soon();
    };
    const answered = () => {
      this.#mapDirty = 'now';
      this.scheduler.soon();
    };
    const bad = (/** @type {string} */ why) => {
      this.link.counts.dropped += 1;
      this.link.counts.lastBad = why;
      this.scheduler.soon();
    };
    const fail = (/** @type {string} */ why) => {
      this.stop();
      refused(why);
    };
    const api = new Api(who.token);
    const select = (/** @type {string | null} */ id) => this.select(id);
    this.map = new MapView({ touched, select });
    this.columns = new Columns({ touched, select });
    this.details = new Details();
    this.inquiry = new Inquiry(api, { touched: answered, bad, refused: fail });
    this.panel = new Panel(this.#control, api, this.#clock, {
      touched: () => this.scheduler.now(),
      bad,
      refused: fail,
      done: () => this.link.expectControl(),
      moved: touched,
    });
    const drain = who.role === 'admin' ? this.panel.drain : null;
    this.nodes = new Nodes(api, drain, { touched: () => this.scheduler.soon(), bad, refused: fail });
    this.figures = new FiguresView((state) => this.#show(state));
    this.link = new Link(who, this.#board, this.#control, this.#clock, api, { told: () => this.scheduler.soon(), changed, refused: fail });
    this.#board.onOffers = (offers) => this.#stats.countOffers(offers, this.#clock.now());
    setText(byId('tenant'), who.tenant);
    setText(byId('user'), who.user);
    byId('search').addEventListener('input', (/** @type {any} */ event) => {
      this.columns.search(event.target.value);
      touched();
    });
    byId('details-close').addEventListener('click', () => this.select(null));
    byId('insist').addEventListener('click', () => this.link.insist());
    document.addEventListener('keydown', (event) => this.#onKey(event));
    for (const tab of document.querySelectorAll('[data-tab]')) {
      tab.addEventListener('click', () => this.#openTab(/** @type {string} */ (tab.getAttribute('data-tab'))));
    }
    themed(byId('theme'), () => this.map.recolour());
    this.#openTab('board');
  }

  async start() {
    this.link.start();
    this.nodes.ask();
    this.scheduler.beat(BEAT_MS);
    try {
      const response = await fetch('config.json', { cache: 'no-cache' });
      const config = await response.json();
      if (checkConfig(config, 'config') === null) this.map.configure(config.tiles);
    } catch {
      // the map goes without tiles
    }
  }

  stop() {
    this.link.stop();
    this.nodes.stop();
    this.panel.stop();
    this.inquiry.select(null);
  }

  /** @param {string | null} id */
  select(id) {
    const before = this.#selected;
    this.#selected = id;
    if (id !== before) this.inquiry.select(id);
    this.columns.select(id);
    this.#mapDirty = 'now';
    this.map.fit();
    if (id !== null && this.panel.open && !narrow.matches) this.panel.show(false);
    if (id !== null && narrow.matches) this.#openTab('details');
    if (id === null) {
      if (narrow.matches) this.#openTab('board');
      /** @type {HTMLElement | null} */ (document.querySelector(`#columns [data-broadcast="${CSS.escape(before ?? '')}"]`))?.focus();
    }
    this.scheduler.now();
  }

  render() {
    const now = this.#clock.now();
    const { broadcasts } = this.#board;
    if (this.#board.known) this.#stats.begin(now);
    const changed = this.#board.takeChanged();
    if (this.#selected !== null && changed.has(this.#selected)) this.inquiry.again();
    this.columns.take(changed, broadcasts);
    this.columns.render(now, this.#board.known);
    // What is not known yet is not zero, and in what is stale nothing happens.
    if (this.#board.known && this.link.state !== 'stale') {
      this.figures.render(this.columns, () => this.#stats.figures(broadcasts.values(), now));
    }
    const held = broadcasts.get(this.#selected ?? '');
    this.details.render(this.inquiry, held, this.#clock);
    const due = performance.now() - this.#mapDrawnAt >= MAP_EVERY_MS;
    if (this.#mapDirty === 'now' || (this.#mapDirty === 'soon' && due)) {
      this.#mapDirty = 'no';
      this.#mapDrawnAt = performance.now();
      this.map.render(broadcasts, held ?? this.inquiry.view, this.inquiry.timeline);
      this.map.describe(this.#mapWords(held));
    }
    this.nodes.render(this.link.state === 'live' || this.link.state === 'polling');
    this.panel.render(this.link);
    this.#renderState();
  }

  #renderState() {
    const { link } = this;
    const host = byId('connection');
    const since = link.trueAt ? `Stale since ${clockTime(link.trueAt)}` : 'The server cannot be reached';
    const words = { live: 'Live', polling: 'Polling every 5 s', connecting: 'Connecting …', stale: since };
    setAttribute(host, 'data-connection', link.state);
    setText(byId('connection-text'), words[link.state]);
    setAttribute(document.documentElement, 'data-stale', link.state === 'stale' && this.#board.known);
    setText(byId('why'), link.why);
    setHidden(byId('why-bar'), !link.why);
    const { frames, dropped, resyncs, connects, lastBad } = link.counts;
    const version = this.#board.version ? `version ${this.#board.version.join('.')}` : 'no version';
    const parts = [
      counted(frames, 'message'),
      `${dropped} dropped`,
      counted(resyncs, 'resync'),
      counted(connects, 'connection'),
      version,
      `clock ${this.#clock.offset >= 0 ? '+' : '−'}${Math.abs(this.#clock.offset)} ms`,
      counted(this.scheduler.renders, 'render'),
    ];
    if (lastBad) parts.push(`last dropped: ${lastBad.slice(0, 120)}`);
    setText(byId('diagnostics'), parts.join(' · '));
    setAttribute(byId('diagnostics'), 'data-dropped', dropped);
  }

  /** @param {import('./check.js').View | undefined} held */
  #mapWords(held) {
    const live = this.columns.size('searching') + this.columns.size('partially_filled');
    const what = held ? `the selected broadcast, whose details stand beside it as text` : counted(live, 'live broadcast');
    return `Map of ${what}. Arrow keys move it, plus and minus zoom, 0 fits.`;
  }

  /** Bring a column into view. @param {string} state */
  #show(state) {
    this.#openTab('board');
    const column = document.querySelector(`[data-state="${state}"]`);
    column?.scrollIntoView({ block: 'start' });
    /** @type {HTMLElement | null} */ (column?.querySelector('.card'))?.focus({ preventScroll: true });
  }

  /** @param {string} name */
  #openTab(name) {
    if (byId('app').getAttribute('data-tab-open') !== name) scrollTo(0, 0);
    setAttribute(byId('app'), 'data-tab-open', name);
    for (const tab of document.querySelectorAll('[data-tab]')) {
      setAttribute(tab, 'aria-pressed', String(tab.getAttribute('data-tab') === name));
    }
    if (narrow.matches) this.panel.show(name === 'control');
    this.#mapDirty = 'now';
    this.scheduler.now();
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const target = /** @type {Element} */ (event.target);
    if (target.closest('input, select, textarea, dialog')) return;
    if (event.key === 'Escape' && this.#selected !== null) this.select(null);
    if (event.key === '/') {
      event.preventDefault();
      byId('search').focus();
    }
  }
}

/** @type {App | null} */
let app = null;

/** @param {string} why nothing: nobody has signed in yet */
function askForToken(why) {
  session.forget();
  app?.stop();
  setHidden(byId('app'), true);
  setHidden(byId('sign-in'), false);
  setText(byId('sign-in-why'), why);
  setHidden(byId('sign-in-why'), !why);
  byId('token').focus();
}

/** @param {import('./session.js').Session} who */
function enter(who) {
  if (!ROLES.includes(who.role)) {
    askForToken(`This token is for the role “${who.role}”. The console needs an operator’s or an admin’s.`);
    return;
  }
  session.store(who);
  if (app) {
    location.reload(); // nothing of who was here before is kept
    return;
  }
  setHidden(byId('sign-in'), true);
  setHidden(byId('app'), false);
  app = new App(who, askForToken);
  app.start();
}

/** @param {string} pasted */
function enterWith(pasted) {
  const who = session.read(pasted);
  if (who) enter(who);
  else askForToken('That is not a token. One has three long parts with dots between them, and begins with “eyJ”.');
}

byId('sign-in-form').addEventListener('submit', (/** @type {Event} */ event) => {
  event.preventDefault();
  const field = byId('token');
  const pasted = field.value;
  field.value = '';
  enterWith(pasted);
});
byId('sign-out').addEventListener('click', () => {
  app?.stop();
  session.forget();
  location.reload();
});
addEventListener('hashchange', () => {
  const given = session.takeFromAddress();
  if (given !== null) enterWith(given);
});

const given = session.takeFromAddress();
const who = session.stored();
if (given !== null) enterWith(given);
else if (who) enter(who);
else askForToken('');
