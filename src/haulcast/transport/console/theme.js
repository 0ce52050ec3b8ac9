/** Light or dark: what the system wants, unless the viewer has chosen. The choice is kept for later visits. */

import { setAttribute } from './dom.js';

const KEY = 'haulcast.theme';
const dark = matchMedia('(prefers-color-scheme: dark)');

const chosen = () => localStorage.getItem(KEY);
const shown = () => chosen() ?? (dark.matches ? 'dark' : 'light');

export const isDark = () => shown() === 'dark';

/** @param {HTMLElement} button @param {() => void} changed */
export function themed(button, changed) {
  const show = () => {
    setAttribute(document.documentElement, 'data-theme', chosen());
    const other = shown() === 'dark' ? 'light' : 'dark';
    setAttribute(button, 'aria-label', `Use the ${other} theme`);
    setAttribute(button, 'title', `Use the ${other} theme`);
    changed();
  };
  button.addEventListener('click', () => {
    const other = shown() === 'dark' ? 'light' : 'dark';
    if (other === (dark.matches ? 'dark' : 'light')) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, other);
    show();
  });
  dark.addEventListener('change', show);
  show();
}
