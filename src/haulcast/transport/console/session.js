/**
 * Who is signed in.
 *
 * 1. The token comes from the form or from `#token=...`, which is taken out of the address bar before anything else.
 * 2. It is kept in sessionStorage: it ends with the tab, and no other tab or later visit finds it.
 * 3. What the token claims is read for its tenant and role only. Whether it is any good the server decides.
 *
 * @typedef {{token: string, tenant: string, role: string, user: string}} Session
 */

const KEY = 'haulcast.token';
const FRAGMENT = /(?:^#|[#&])token=([^&\s]+)/;

/** Take the token out of the address, if one is there. */
export function takeFromAddress() {
  const match = FRAGMENT.exec(location.hash);
  if (!match) return null;
  history.replaceState(null, '', location.pathname + location.search);
  try {
    return decodeURIComponent(match[1]);
  } catch {
    return match[1];
  }
}

/**
 * What somebody pasted, as a session. A whole address of this page will do as well as a bare token.
 * @param {string} pasted
 * @returns {Session | null} null: it is no token at all
 */
export function read(pasted) {
  const token = (FRAGMENT.exec(pasted)?.[1] ?? pasted).trim().replace(/^Bearer\s+/i, '');
  const parts = token.split('.');
  if (parts.length !== 3 || token.length > 8192) return null;
  try {
    const bytes = Uint8Array.from(atob(parts[1].replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    const { tenant, role, sub } = claims;
    if (![tenant, role, sub].every((claim) => typeof claim === 'string')) return null;
    return { token, tenant, role, user: sub };
  } catch {
    return null;
  }
}

/** The session of this tab. @returns {Session | null} */
export function stored() {
  const token = sessionStorage.getItem(KEY);
  return token === null ? null : read(token);
}

/** @param {Session} session */
export function store(session) {
  sessionStorage.setItem(KEY, session.token);
}

/** Sign out. */
export function forget() {
  sessionStorage.removeItem(KEY);
}
