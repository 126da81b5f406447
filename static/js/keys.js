// Shortcuts of one key. The page says them itself: a button with aria-keyshortcuts is pressed by that key, unless
// the reader is typing, has switched them off, or holds another key with it.

const KEPT = "batonic.keys"; // in the browser
const TAKES_TEXT = "input:not([type=range], [type=checkbox]), select, textarea, [contenteditable]";
const TAKES_SPACE = `${TAKES_TEXT}, button, summary, input[type=checkbox]`;

// Where the browser keeps nothing for sites, asking it throws: then the choice holds as long as the page does.
function kept() {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

function keep(choice) {
  try {
    localStorage.setItem(KEPT, choice);
  } catch {
    // the next page begins with the keys on
  }
}

export class Keys {
  #buttons;
  #toggle;

  constructor(root, toggle) {
    const buttons = root.querySelectorAll("[aria-keyshortcuts]");
    this.#buttons = new Map(Array.from(buttons, (button) => [button.getAttribute("aria-keyshortcuts").toLowerCase(), button]));
    this.#toggle = toggle;
    toggle.checked = kept() !== "off";
    toggle.disabled = false;
    toggle.addEventListener("change", () => keep(toggle.checked ? "on" : "off"));
    root.addEventListener("keydown", (event) => this.#press(event));
  }

  #press(event) {
    const key = event.key === " " ? "space" : event.key.toLowerCase();
    const button = this.#buttons.get(key);
    if (!button || button.matches(":disabled") || !this.#toggle.checked) return;
    if (event.target.closest?.(key === "space" ? TAKES_SPACE : TAKES_TEXT)) return;
    // On many keyboards brackets need AltGr, which is told as Ctrl and Alt.
    const combined = (event.ctrlKey || event.altKey) && !event.getModifierState("AltGraph");
    if (combined || event.metaKey) return;
    event.preventDefault(); // the space bar would scroll
    if (event.repeat && !("step" in button.dataset)) return; // a held key steps on, and nothing else
    button.click();
  }
}
