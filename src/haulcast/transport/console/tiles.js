/**
 * Images of a tile server, if the deployment has chosen one. The map is whole without them.
 *
 * A bounded number is kept, the latest used last. One that cannot be had is not asked for again for a minute.
 */

import { TILE } from './mercator.js';

const KEPT = 256;
const AGAIN_MS = 60_000;
const DEEPEST = 19;

export class Tiles {
  /** @type {Map<string, {image: HTMLImageElement, ready: boolean, failedAt: number}>} */ #kept = new Map();

  /** @param {string} template an address with {z}, {x} and {y} @param {() => void} came called when there is one more */
  constructor(template, came) {
    this.template = template;
    this.came = came;
  }

  /**
   * Draw those that are seen and there, and ask for the others.
   * @param {CanvasRenderingContext2D} context its origin is the middle @param {import('./mercator.js').Camera} camera
   * @param {number} width @param {number} height
   */
  draw(context, camera, width, height) {
    const z = Math.max(0, Math.min(DEEPEST, Math.round(camera.zoom)));
    const across = 2 ** z;
    const size = TILE * 2 ** (camera.zoom - z);
    const west = camera.toWorld(-width / 2, -height / 2);
    const east = camera.toWorld(width / 2, height / 2);
    for (let y = Math.max(0, Math.floor(west.y * across)); y <= Math.min(across - 1, Math.floor(east.y * across)); y += 1) {
      for (let x = Math.floor(west.x * across); x <= Math.floor(east.x * across); x += 1) {
        const image = this.#tile(z, ((x % across) + across) % across, y);
        if (!image) continue;
        const at = camera.toScreen({ x: x / across, y: y / across });
        context.drawImage(image, Math.floor(at.x), Math.floor(at.y), Math.ceil(size) + 1, Math.ceil(size) + 1);
      }
    }
  }

  /** @param {number} z @param {number} x @param {number} y */
  #tile(z, x, y) {
    const key = `${z}/${x}/${y}`;
    let tile = this.#kept.get(key);
    if (tile && tile.failedAt && performance.now() - tile.failedAt > AGAIN_MS) tile = undefined;
    this.#kept.delete(key);
    tile ??= this.#ask(z, x, y);
    this.#kept.set(key, tile);
    if (this.#kept.size > KEPT) this.#kept.delete(/** @type {string} */ (this.#kept.keys().next().value));
    return tile.ready ? tile.image : null;
  }

  /** @param {number} z @param {number} x @param {number} y */
  #ask(z, x, y) {
    const image = new Image();
    const tile = { image, ready: false, failedAt: 0 };
    image.referrerPolicy = 'strict-origin'; // some refuse to serve pages that do not say where they are
    image.onload = () => {
      tile.ready = true;
      this.came();
    };
    image.onerror = () => (tile.failedAt = performance.now());
    image.src = this.template.replaceAll('{z}', String(z)).replaceAll('{x}', String(x)).replaceAll('{y}', String(y));
    return tile;
  }
}
