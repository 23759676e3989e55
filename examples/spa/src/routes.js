// Paths that only this script knows.
const pages = { "/": "Home", "/about/us": "About us", "/version": "one" };

export const pageOf = (path) => pages[path] ?? "Nothing here";
