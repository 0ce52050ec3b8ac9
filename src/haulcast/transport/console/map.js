/**
 * The map: what it looks at, and how the viewer moves it.
 *
 * 1. It is drawn like everything else, by the scheduler. Between two drawings a gesture moves and scales the picture that
 *    is there, which costs nothing; the canvas is larger than the map is, so that there is something to move in.
 * 2. It follows what is selected, or else where most live broadcasts are, until the viewer moves it. `Fit` has it follow
 *    again.
 * 3. All that it shows of the selected broadcast stands in the details as text.
 *
 * @typedef {import('./check.js').View} View
 */

import { byId, setAttribute, setText } from './dom.js';
import { metresBetween } from './format.js';
import { Camera, metresPerPixel, project, shareOf, unproject } from './mercator.js';
import { OVERDRAWN, Scene } from './scene.js';
import { median } from './stats.js';
import { isDark } from './theme.js';
import { Tiles } from './tiles.js';

/** So much around a pickup is seen at least, unless its first wave reached less. */
const NEAR_M = 10_000;
const MARGIN_PX = 36;
const REACH_PX = 16;
const STEP_PX = 60;
/** What is farther from the pickup would make all else too small to see. */
const FAR_M = 150_000;
const SCALE_PX = 90;

export class MapView {
  #host = byId('map');
  #canvas = byId('map-canvas');
  #context = /** @type {CanvasRenderingContext2D} */ (byId('map-canvas').getContext('2d'));
  #scaleBar = byId('map-scale');
  #scene = new Scene(byId('probe'));
  #camera = new Camera();
  #drawn = new Camera();
  /** @type {Tiles | null} */ #tiles = null;
  /** @type {Map<number, {x: number, y: number}>} */ #pointers = new Map();
  #movedPx = 0;
  #follows = true;
  #fittedTo = '';
  /** @type {Map<string, View>} */ #views = new Map();
  #touched;
  #select;

  /** @param {{touched: () => void, select: (id: string) => void}} listener */
  constructor({ touched, select }) {
    this.#touched = touched;
    this.#select = select;
    this.#host.addEventListener('pointerdown', (/** @type {PointerEvent} */ event) => this.#onDown(event));
    this.#host.addEventListener('pointermove', (/** @type {PointerEvent} */ event) => this.#onMove(event));
    for (const name of ['pointerup', 'pointercancel']) {
      this.#host.addEventListener(name, (/** @type {PointerEvent} */ event) => this.#onUp(event));
    }
    this.#host.addEventListener('wheel', (/** @type {WheelEvent} */ event) => this.#onWheel(event), { passive: false });
    this.#host.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => this.#onKey(event));
    byId('map-in').addEventListener('click', () => this.#zoom(1));
    byId('map-out').addEventListener('click', () => this.#zoom(-1));
    byId('map-fit').addEventListener('click', () => this.fit());
    new ResizeObserver(() => {
      this.#fittedTo = '';
      touched();
    }).observe(this.#host);
    this.recolour();
  }

  /** @param {{url: string, attribution: string} | null} tiles */
  configure(tiles) {
    this.#tiles = tiles && new Tiles(tiles.url, this.#touched);
    setText(byId('map-attribution'), tiles?.attribution ?? '');
    this.#touched();
  }

  /** The theme has changed. */
  recolour() {
    this.#scene.recolour();
    this.#touched();
  }

  /** Follow what is selected again. */
  fit() {
    this.#follows = true;
    this.#fittedTo = '';
    this.#touched();
  }

  /** @param {Map<string, View>} views @param {View | null} selected @param {import('./inquiry.js').TimelineEntry[] | null} timeline */
  render(views, selected, timeline) {
    const { clientWidth: width, clientHeight: height } = this.#host;
    if (!width || !height) return;
    this.#views = views;
    const radii = radiiOf(timeline);
    if (this.#follows) this.#fit(views, selected, radii, width, height);
    const ratio = Math.min(2, devicePixelRatio || 1);
    const [across, down] = [Math.round(width * OVERDRAWN), Math.round(height * OVERDRAWN)];
    if (this.#canvas.width !== Math.round(across * ratio) || this.#canvas.height !== Math.round(down * ratio)) {
      this.#canvas.width = Math.round(across * ratio);
      this.#canvas.height = Math.round(down * ratio);
      this.#canvas.style.width = `${across}px`;
      this.#canvas.style.height = `${down}px`;
    }
    this.#drawn = this.#camera.copy();
    this.#canvas.style.transform = '';
    const context = this.#context;
    context.setTransform(ratio, 0, 0, ratio, (across * ratio) / 2, (down * ratio) / 2);
    const tiles = this.#fittedTo || !this.#follows ? this.#tiles : null; // not of the whole world, before there is anything
    this.#scene.draw(context, this.#camera, { views: views.values(), selected, radii }, across, down, tiles, isDark());
    this.#showScale();
  }

  /** @param {Map<string, View>} views @param {View | null} selected @param {number[]} radii @param {number} width @param {number} height */
  #fit(views, selected, radii, width, height) {
    const live = selected ? [] : [...views.values()].filter((view) => view.ended_at === null);
    const others = this.#fittedTo || (views.size ? 'ended' : ''); // it does not leap when the last live one has ended
    const to = selected ? `${selected.broadcast_id} ${selected.wave} ${radii}` : live.length ? 'live' : others;
    if (to === this.#fittedTo) return;
    this.#fittedTo = to;
    if (selected) this.#camera.fit(pointsOf(selected, radii), width, height, MARGIN_PX);
    else this.#camera.fit(middleOf(live.length ? live : [...views.values()]), width, height, MARGIN_PX);
  }

  #showScale() {
    const { lat } = unproject(this.#camera);
    const perPixel = metresPerPixel(lat, this.#camera.zoom);
    const longest = perPixel * SCALE_PX;
    const power = 10 ** Math.floor(Math.log10(longest));
    const metres = [5, 2, 1].map((digit) => digit * power).find((each) => each <= longest) ?? power;
    this.#scaleBar.style.width = `${Math.round(metres / perPixel)}px`;
    setText(this.#scaleBar, metres >= 1000 ? `${metres / 1000} km` : `${metres} m`);
  }

  // --- Gestures ---

  #moved() {
    this.#follows = false;
    const { scale } = this.#camera;
    const k = scale / this.#drawn.scale;
    const x = (this.#drawn.x - this.#camera.x) * scale;
    const y = (this.#drawn.y - this.#camera.y) * scale;
    this.#canvas.style.transform = `translate(${x}px, ${y}px) scale(${k})`;
    this.#touched();
  }

  /** @param {number} by @param {number} [x] @param {number} [y] */
  #zoom(by, x = 0, y = 0) {
    this.#camera.zoomAt(by, x, y);
    this.#moved();
  }

  /** Pixels from the middle. @param {{clientX: number, clientY: number}} event */
  #at(event) {
    const box = this.#host.getBoundingClientRect();
    return { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2 };
  }

  /** @param {PointerEvent} event */
  #onDown(event) {
    if (/** @type {Element} */ (event.target).closest('button')) return;
    this.#host.setPointerCapture(event.pointerId);
    if (!this.#pointers.size) this.#movedPx = 0;
    this.#pointers.set(event.pointerId, this.#at(event));
  }

  /** @param {PointerEvent} event */
  #onMove(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const after = this.#at(event);
    const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.#movedPx += Math.hypot(after.x - before.x, after.y - before.y);
    this.#pointers.set(event.pointerId, after);
    if (this.#movedPx < 4) return;
    if (other) {
      const grown = Math.hypot(after.x - other.x, after.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
      this.#camera.pan((after.x - before.x) / 2, (after.y - before.y) / 2);
      this.#camera.zoomAt(Math.log2(grown), (after.x + other.x) / 2, (after.y + other.y) / 2);
    } else {
      this.#camera.pan(after.x - before.x, after.y - before.y);
    }
    this.#moved();
  }

  /** @param {PointerEvent} event */
  #onUp(event) {
    if (!this.#pointers.delete(event.pointerId) || this.#movedPx >= 4 || event.type === 'pointercancel') return;
    const at = this.#at(event);
    /** @type {string | null} */
    let nearest = null;
    let reach = REACH_PX;
    for (const view of this.#views.values()) {
      if (view.ended_at !== null && view.status !== 'fully_filled') continue;
      const mark = this.#camera.toScreen(project(view.pickup));
      const away = Math.hypot(mark.x - at.x, mark.y - at.y);
      if (away < reach) [nearest, reach] = [view.broadcast_id, away];
    }
    if (nearest !== null) this.#select(nearest);
  }

  /** @param {WheelEvent} event */
  #onWheel(event) {
    event.preventDefault();
    const { x, y } = this.#at(event);
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 20 : 1;
    this.#zoom(Math.max(-1, Math.min(1, (-event.deltaY * lines) / 300)), x, y);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowLeft: () => this.#camera.pan(STEP_PX, 0),
      ArrowRight: () => this.#camera.pan(-STEP_PX, 0),
      ArrowUp: () => this.#camera.pan(0, STEP_PX),
      ArrowDown: () => this.#camera.pan(0, -STEP_PX),
      '+': () => this.#camera.zoomAt(0.5, 0, 0),
      '=': () => this.#camera.zoomAt(0.5, 0, 0),
      '-': () => this.#camera.zoomAt(-0.5, 0, 0),
    };
    if (event.key === '0') this.fit();
    else if (event.key in keys) {
      keys[event.key]();
      this.#moved();
    } else return;
    event.preventDefault();
  }

  /** Say to those who cannot see it what there is. @param {string} words */
  describe(words) {
    setAttribute(this.#host, 'aria-label', words);
  }
}

/** The radius of each wave that was sent; Infinity: it reached everybody, or it is not known. @param {import('./inquiry.js').TimelineEntry[] | null} timeline */
export function radiiOf(timeline) {
  /** @type {(number | undefined)[]} */
  const radii = [];
  for (const { event, wave, radius_m: radius } of timeline ?? []) {
    if (event === 'wave_sent' && wave) radii[wave - 1] = radius ?? Infinity;
  }
  return Array.from(radii, (radius) => radius ?? Infinity);
}

/** What should be seen of a broadcast: its way, its vehicles, and the radius of the wave, unless that is much more than
 * these need. @param {View} view @param {number[]} radii */
function pointsOf(view, radii) {
  const middle = project(view.pickup);
  const places = [...Object.values(view.route?.vehicles ?? {}), view.drop];
  const near = places.filter((place) => metresBetween(place, view.pickup) < FAR_M);
  const farthest = Math.max(0, ...near.map((place) => metresBetween(place, view.pickup)));
  const current = radii[Math.min(Math.max(1, view.wave), radii.length) - 1] ?? NEAR_M;
  const least = Math.min(radii[0] ?? NEAR_M, NEAR_M);
  const reach = shareOf(Math.min(current, Math.max(least, 1.5 * farthest)), view.pickup.lat);
  return [
    { x: middle.x - reach, y: middle.y - reach },
    { x: middle.x + reach, y: middle.y + reach },
    ...near.map(project),
  ];
}

/** Where most broadcasts are: those far out would make everything else small. @param {View[]} views */
function middleOf(views) {
  const points = views.map((view) => project(view.pickup));
  const x = median(points.map((point) => point.x)) ?? 0.5;
  const y = median(points.map((point) => point.y)) ?? 0.5;
  const away = (/** @type {import('./mercator.js').Point} */ point) => Math.hypot(point.x - x, point.y - y);
  const far = Math.max(6 * (median(points.map(away)) ?? 0), 1e-4);
  return points.filter((point) => away(point) <= far);
}
