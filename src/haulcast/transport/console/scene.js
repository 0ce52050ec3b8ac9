/**
 * What is drawn on the map: a graticule that needs no tile server, all live broadcasts, and the selected one with its
 * way, the radius of each wave, and the vehicles that were offered it.
 *
 * States differ by form as well as by colour: a ring is searching, a half-filled one partly filled, a full one filled.
 *
 * @typedef {import('./check.js').View} View
 * @typedef {import('./mercator.js').Camera} Camera
 * @typedef {{words: string, x: number, y: number, colour: string, align: CanvasTextAlign}} Label
 * @typedef {{views: Iterable<View>, selected: View | null, radii: number[]}} Shown `radii` in metres, one for each wave
 */

import { distance } from './format.js';
import { project, shareOf, unproject } from './mercator.js';

const MARKS_DRAWN = 3_000;
const NAMED_VEHICLES = 12;
const STEPS = [30, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01];
const LINE_EVERY_PX = 110;
/** What is drawn by what is seen, along each side. */
export const OVERDRAWN = 1.5;

export class Scene {
  /** @type {Record<string, string>} */ #colours = {};
  #probe;

  /** @param {HTMLElement} probe an element that nobody sees, to ask for colours */
  constructor(probe) {
    this.#probe = probe;
  }

  /** Those of the drawing under way, the most telling first. @type {Label[]} */ #labels = [];

  /** Ask for the theme's colours again. */
  recolour() {
    for (const name of ['text', 'muted', 'grid', 'map', 'halo', 'searching', 'partly', 'filled', 'ended', 'accent']) {
      this.#probe.style.color = `var(--${name})`;
      this.#colours[name] = getComputedStyle(this.#probe).color;
    }
  }

  /**
   * @param {CanvasRenderingContext2D} context its origin is the middle @param {Camera} camera @param {Shown} shown
   * @param {number} width @param {number} height @param {import('./tiles.js').Tiles | null} tiles @param {boolean} dark
   */
  draw(context, camera, shown, width, height, tiles, dark) {
    const { map } = this.#colours;
    context.fillStyle = map;
    context.fillRect(-width / 2, -height / 2, width, height);
    if (tiles) {
      context.save();
      context.globalAlpha = 0.75;
      if (dark) context.filter = 'invert(1) hue-rotate(180deg) brightness(0.8) saturate(0.6)';
      tiles.draw(context, camera, width, height);
      context.restore();
    }
    this.#graticule(context, camera, width, height, Boolean(tiles));
    this.#marks(context, camera, shown, width, height);
    this.#labels = [];
    if (shown.selected) this.#selected(context, camera, shown.selected, shown.radii);
    this.#write(context);
  }

  /** @param {CanvasRenderingContext2D} context @param {Camera} camera @param {number} width @param {number} height @param {boolean} faint */
  #graticule(context, camera, width, height, faint) {
    const { grid, muted } = this.#colours;
    const perDegree = camera.scale / 360;
    const step = STEPS.find((each, index) => (STEPS[index + 1] ?? 0) * perDegree < LINE_EVERY_PX) ?? 0.01;
    const digits = step >= 1 ? 0 : step >= 0.1 ? 1 : 2;
    const northWest = unproject(camera.toWorld(-width / 2, -height / 2));
    const southEast = unproject(camera.toWorld(width / 2, height / 2));
    context.lineWidth = 1;
    context.strokeStyle = grid;
    context.fillStyle = muted;
    context.globalAlpha = faint ? 0.5 : 1;
    context.font = '10px system-ui, sans-serif';
    context.textAlign = 'left';
    context.textBaseline = 'alphabetic';
    context.beginPath();
    /** @type {[string, number, number][]} */
    const labels = [];
    for (let lng = Math.ceil(northWest.lng / step) * step; lng <= southEast.lng; lng += step) {
      const x = Math.round(camera.toScreen(project({ lat: 0, lng })).x) + 0.5;
      context.moveTo(x, -height / 2);
      context.lineTo(x, height / 2);
      labels.push([`${lng.toFixed(digits)}°`, x + 3, 13 - height / 2 / OVERDRAWN]);
    }
    for (let lat = Math.ceil(southEast.lat / step) * step; lat <= northWest.lat; lat += step) {
      const y = Math.round(camera.toScreen(project({ lat, lng: 0 })).y) + 0.5;
      context.moveTo(-width / 2, y);
      context.lineTo(width / 2, y);
      labels.push([`${lat.toFixed(digits)}°`, 6 - width / 2 / OVERDRAWN, y - 3]);
    }
    context.stroke();
    if (!faint) for (const [label, x, y] of labels) context.fillText(label, x, y);
    context.globalAlpha = 1;
  }

  /** @param {CanvasRenderingContext2D} context @param {Camera} camera @param {Shown} shown @param {number} width @param {number} height */
  #marks(context, camera, { views, selected }, width, height) {
    /** @type {[View[], View[]]} */
    const [live, filled] = [[], []];
    for (const view of views) {
      if (view === selected) continue;
      if (view.ended_at === null) live.push(view);
      else if (view.status === 'fully_filled') filled.push(view);
    }
    for (const view of [...filled.slice(-MARKS_DRAWN), ...live.slice(-MARKS_DRAWN)]) {
      const at = camera.toScreen(project(view.pickup));
      if (Math.abs(at.x) > width / 2 || Math.abs(at.y) > height / 2) continue;
      const over = view.ended_at !== null;
      this.#mark(context, at.x, at.y, view.status, (over ? 0.4 : 1) * (selected ? 0.4 : 1), over ? 1.5 : 4.5);
    }
  }

  /** @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {string} status @param {number} alpha @param {number} radius */
  #mark(context, x, y, status, alpha, radius) {
    const { searching, partly, filled, ended, map } = this.#colours;
    const colour = { searching, partially_filled: partly, fully_filled: filled }[status] ?? ended;
    context.globalAlpha = alpha;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = status === 'fully_filled' ? colour : map;
    context.fill();
    context.lineWidth = 2;
    context.strokeStyle = colour;
    context.stroke();
    if (status === 'partially_filled') {
      context.beginPath();
      context.arc(x, y, radius, Math.PI / 2, 1.5 * Math.PI);
      context.fillStyle = colour;
      context.fill();
    }
    context.globalAlpha = 1;
  }

  /** @param {CanvasRenderingContext2D} context @param {Camera} camera @param {View} view @param {number[]} radii */
  #selected(context, camera, view, radii) {
    const { accent, text } = this.#colours;
    const pickup = camera.toScreen(project(view.pickup));
    const drop = camera.toScreen(project(view.drop));
    /** @type {Label[]} */
    const rings = [];
    radii.slice(0, Math.max(1, view.wave)).forEach((metres, index) => {
      if (metres === Infinity) return;
      const current = index === Math.min(view.wave, radii.length) - 1;
      const radius = shareOf(metres, view.pickup.lat) * camera.scale;
      context.beginPath();
      context.arc(pickup.x, pickup.y, radius, 0, 2 * Math.PI);
      context.strokeStyle = accent;
      context.fillStyle = accent;
      if (current) {
        context.globalAlpha = 0.06;
        context.fill();
      }
      context.globalAlpha = current ? 0.9 : 0.45;
      context.lineWidth = current ? 1.5 : 1;
      context.setLineDash(current ? [] : [4, 4]);
      context.stroke();
      context.setLineDash([]);
      context.globalAlpha = 1;
      rings.push({ words: `wave ${index + 1}: ${distance(metres)}`, x: pickup.x, y: pickup.y - radius - 5, colour: accent, align: 'center' });
    });
    context.beginPath();
    context.moveTo(pickup.x, pickup.y);
    context.lineTo(drop.x, drop.y);
    context.strokeStyle = text;
    context.lineWidth = 1.5;
    context.setLineDash([2, 4]);
    context.stroke();
    context.setLineDash([]);
    this.#labels.push(
      { words: 'Pickup', x: pickup.x + 12, y: pickup.y + 4, colour: text, align: 'left' },
      { words: 'Drop', x: drop.x + 9, y: drop.y + 4, colour: text, align: 'left' },
    );
    this.#vehicles(context, camera, view, pickup);
    this.#labels.push(...rings.reverse());
    context.fillStyle = text;
    context.fillRect(drop.x - 5, drop.y - 5, 10, 10);
    this.#mark(context, pickup.x, pickup.y, view.status, 1, 7);
  }

  /** @param {CanvasRenderingContext2D} context @param {Camera} camera @param {View} view @param {import('./mercator.js').Point} pickup */
  #vehicles(context, camera, view, pickup) {
    const { filled, muted, text } = this.#colours;
    const vehicles = Object.entries(view.route?.vehicles ?? {});
    const won = new Set(Object.values(view.trips).map((trip) => trip.vehicle_id));
    vehicles.sort(([one], [other]) => Number(won.has(one)) - Number(won.has(other)));
    /** @type {Label[]} */
    const others = [];
    for (const [id, vehicle] of vehicles) {
      const winner = won.has(id);
      const at = camera.toScreen(project(vehicle));
      const half = winner ? 7 : 4.5;
      if (winner) {
        context.beginPath();
        context.moveTo(at.x, at.y);
        context.lineTo(pickup.x, pickup.y);
        context.strokeStyle = filled;
        context.lineWidth = 2;
        context.stroke();
      }
      context.beginPath();
      context.moveTo(at.x, at.y - half);
      context.lineTo(at.x + half, at.y);
      context.lineTo(at.x, at.y + half);
      context.lineTo(at.x - half, at.y);
      context.closePath();
      context.fillStyle = winner ? filled : muted;
      context.fill();
      const name = vehicle.transporter_id;
      if (winner) this.#labels.push({ words: `${name} won`, x: at.x + 10, y: at.y + 4, colour: filled, align: 'left' });
      else others.push({ words: name, x: at.x + 8, y: at.y + 4, colour: text, align: 'left' });
    }
    if (vehicles.length <= NAMED_VEHICLES) this.#labels.push(...others);
  }

  /** Write the labels, but for those that would cover one before them. @param {CanvasRenderingContext2D} context */
  #write(context) {
    context.font = '600 11px system-ui, sans-serif';
    context.textBaseline = 'alphabetic';
    context.lineJoin = 'round';
    context.lineWidth = 3;
    context.strokeStyle = this.#colours.halo;
    /** @type {[number, number, number][]} left, right and baseline of those that are written */
    const written = [];
    for (const { words, x, y, colour, align } of this.#labels) {
      const { width } = context.measureText(words);
      const left = align === 'center' ? x - width / 2 : x;
      if (written.some(([from, to, line]) => left < to + 2 && left + width > from - 2 && Math.abs(line - y) < 12)) continue;
      written.push([left, left + width, y]);
      context.textAlign = align;
      context.strokeText(words, x, y);
      context.fillStyle = colour;
      context.fillText(words, x, y);
    }
  }
}
