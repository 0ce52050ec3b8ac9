/** A question in the page, before something that is not to happen by mistake. The browser keeps the focus in it. */

import { byId, setText } from './dom.js';

/**
 * Ask, and wait for the answer. Escape means no.
 * @param {{title: string, text: string, yes: string}} question `yes`: what the button says that does it
 * @returns {Promise<boolean>}
 */
export function confirmed({ title, text, yes }) {
  const dialog = byId('confirm');
  if (dialog.open) return Promise.resolve(false);
  setText(byId('confirm-title'), title);
  setText(byId('confirm-text'), text);
  setText(byId('confirm-yes'), yes);
  dialog.returnValue = '';
  dialog.showModal();
  byId('confirm-no').focus();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}

/** Wire its buttons; once for the page. */
export function wireConfirm() {
  const dialog = byId('confirm');
  byId('confirm-yes').addEventListener('click', () => dialog.close('yes'));
  byId('confirm-no').addEventListener('click', () => dialog.close('no'));
}
