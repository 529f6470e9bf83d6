// DOM helpers. They never parse HTML, so telemetry cannot inject markup.

const SVG = "http://www.w3.org/2000/svg";

function make(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, v] of Object.entries(value)) element.style.setProperty(key, v);
    else if (name === "value" || name === "checked" || name === "open") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Returns an HTML element: h("p", {class: "muted"}, "text", h("b", {}, "bold")). */
export function h(tag, properties, ...children) {
  const element = make(document.createElement(tag), properties, children);
  return tag === "table" ? labelled(element) : element;
}

/** Returns an SVG element. */
export const s = (tag, properties, ...children) => make(document.createElementNS(SVG, tag), properties, children);

/** Replaces the content of an element. */
export function show(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter(Boolean));
  return element;
}

/** Gives each cell of a table the heading of its column, which a phone shows before the cell. */
function labelled(table) {
  const names = [...(table.tHead?.rows[0]?.cells ?? [])].map((cell) => cell.textContent);
  for (const { parentNode, cells } of table.rows) {
    if (parentNode !== table.tHead && cells.length === names.length) for (const [at, cell] of [...cells].entries()) cell.dataset.label = names[at];
  }
  return table;
}

/** Replaces the content of an element and restores focus and scroll position. */
export function refresh(element, ...children) {
  const focus = document.activeElement?.closest("[data-focus]");
  const key = focus && element.contains(focus) ? focus.dataset.focus : null;
  const place = key && [focus.scrollLeft, focus.scrollTop];
  show(element, ...children);
  const again = key && element.querySelector(`[data-focus="${CSS.escape(key)}"]`);
  if (!again) return;
  again.focus({ preventScroll: true });
  again.scrollTo(...place);
}

/** A scrollable region that can also be scrolled by keyboard. */
export const scrolls = (name, kind, ...children) =>
  h("div", { class: `scroll ${kind}`, tabindex: 0, role: "region", "aria-label": name, "data-focus": `scroll ${name}` }, ...children);

const ROWS = 100, whole = new Set();

/** Returns the first rows of a long list and a button that calls back with all of them shown. */
export function page(name, rows, again) {
  if (rows.length <= ROWS || whole.has(name)) return [rows, null];
  return [rows.slice(0, ROWS), h("button", { type: "button", onclick: () => { whole.add(name); again(); } }, `Show all ${rows.length}`)];
}

/** A card with a table; a function returns the cells of each row. */
export function table(title, columns, rows, cells, none, ...after) {
  const [shown, more] = page(title, rows, () => section.replaceWith(table(title, columns, rows, cells, none, ...after)));
  const section = h("section", { class: "card flush" }, h("h2", {}, title, " ", ...after),
    rows.length ? scrolls(title, "", h("table", {}, h("thead", {}, h("tr", {}, columns.map((c) => h("th", {}, c)))), h("tbody", {}, shown.map((row) => h("tr", {}, cells(row).map((cell) => h("td", {}, cell))))))) : empty(none), more);
  return section;
}

export const pill = (kind, ...text) => h("span", { class: `pill ${kind}` }, ...text);

export const head = (title, note, ...tools) =>
  h("div", { class: "head" }, h("h1", {}, title), h("span", { class: "grow" }), ...tools, note ? h("p", {}, note) : null);

export const empty = (text) => h("p", { class: "empty" }, text);

/** A definition list of facts; values may be elements. */
export const facts = (pairs) =>
  h("dl", { class: "facts" }, pairs.flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)]));

/** A select element; each choice is a value or [value, text]. */
export const choice = (label, name, values, chosen, any) =>
  h("label", {}, label,
    h("select", { name },
      any ? h("option", { value: "" }, any) : null,
      // A value of the URL that is not in the list filters all the same, so it must be visible.
      [...values, ...(chosen && !values.flat().includes(chosen) ? [chosen] : [])].map((v) => (Array.isArray(v) ? v : [v, v])).map(([value, text]) =>
        h("option", { value, selected: value === chosen }, text))));
