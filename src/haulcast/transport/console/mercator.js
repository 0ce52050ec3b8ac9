/**
 * Web Mercator, as tile servers have it: the world is a square from (0, 0) in the north-west to (1, 1), and at zoom z it
 * is 256 * 2^z pixels wide.
 *
 * @typedef {{lat: number, lng: number}} LatLng
 * @typedef {{x: number, y: number}} Point
 */

export const TILE = 256;
const EARTH_AROUND_M = 40_075_017;
const NORTHMOST = 85.0511;

/** @param {LatLng} place @returns {Point} */
export function project({ lat, lng }) {
  const sine = Math.sin((Math.max(-NORTHMOST, Math.min(NORTHMOST, lat)) * Math.PI) / 180);
  return { x: lng / 360 + 0.5, y: 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI) };
}

/** @param {Point} point @returns {LatLng} */
export function unproject({ x, y }) {
  return { lat: (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI, lng: (x - 0.5) * 360 };
}

/** The size of so many metres at a latitude, as a share of the world. @param {number} metres @param {number} lat */
export const shareOf = (metres, lat) => metres / (EARTH_AROUND_M * Math.cos((lat * Math.PI) / 180));

/** Metres of one pixel. @param {number} lat @param {number} zoom */
export const metresPerPixel = (lat, zoom) => (EARTH_AROUND_M * Math.cos((lat * Math.PI) / 180)) / (TILE * 2 ** zoom);

/** What is seen: its middle and how large it is drawn. */
export class Camera {
  x = 0.5;
  y = 0.5;
  zoom = 2;

  /** Pixels of the whole world. */
  get scale() {
    return TILE * 2 ** this.zoom;
  }

  /** Where a point is, in pixels from the middle. @param {Point} point @returns {Point} */
  toScreen(point) {
    return { x: (point.x - this.x) * this.scale, y: (point.y - this.y) * this.scale };
  }

  /** What is at so many pixels from the middle. @param {number} x @param {number} y @returns {Point} */
  toWorld(x, y) {
    return { x: this.x + x / this.scale, y: this.y + y / this.scale };
  }

  copy() {
    return Object.assign(new Camera(), this);
  }

  /** @param {number} dx @param {number} dy pixels that the map is moved by */
  pan(dx, dy) {
    this.x -= dx / this.scale;
    this.y = Math.max(0, Math.min(1, this.y - dy / this.scale));
  }

  /** Zoom so that what is at so many pixels from the middle stays there. @param {number} by @param {number} x @param {number} y */
  zoomAt(by, x, y) {
    const at = this.toWorld(x, y);
    this.zoom = Math.max(2, Math.min(18, this.zoom + by));
    this.x = at.x - x / this.scale;
    this.y = at.y - y / this.scale;
  }

  /**
   * Show all of these. @param {Point[]} points @param {number} width @param {number} height @param {number} margin pixels
   */
  fit(points, width, height, margin) {
    if (!points.length) return;
    const xs = points.map((point) => point.x);
    const ys = points.map((point) => point.y);
    const [west, east] = [Math.min(...xs), Math.max(...xs)];
    const [north, south] = [Math.min(...ys), Math.max(...ys)];
    this.x = (west + east) / 2;
    this.y = (north + south) / 2;
    const across = Math.max(1, width - 2 * margin) / Math.max(1e-9, east - west);
    const down = Math.max(1, height - 2 * margin) / Math.max(1e-9, south - north);
    this.zoom = Math.max(2, Math.min(14, Math.log2(Math.min(across, down) / TILE)));
  }
}
