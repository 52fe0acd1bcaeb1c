/** Light or dark: as the system says, until the user says otherwise. */

import { element, setText } from "./elements.js";

const KEY = "softcam-theme";
const ORDER = ["auto", "light", "dark"];
const SIGNS = { auto: "◐", light: "☀", dark: "☾" };

/** @param {() => void} changed */
export function watchTheme(changed) {
  let theme = recall();
  const apply = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    setText(element("theme"), SIGNS[/** @type {"auto"} */ (theme)]);
    element("theme").title = `Colours: ${theme}`;
    element("theme").setAttribute("aria-label", `Colours of the page: ${theme}. Switch.`);
    changed();
  };
  element("theme").addEventListener("click", () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    remember(theme);
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  apply();
}

// A page without an origin of its own, such as one in a notebook, has no storage.
function recall() {
  try {
    const found = localStorage.getItem(KEY) ?? "auto";
    return ORDER.includes(found) ? found : "auto";
  } catch {
    return "auto";
  }
}

/** @param {string} theme */
function remember(theme) {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Then it holds until the page is left.
  }
}
