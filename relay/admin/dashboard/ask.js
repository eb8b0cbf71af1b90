// Asks the operator before something is done.

import { element, make } from "./dom.js";

/**
 * Resolves to the values of the fields, by name, or to null where it was cancelled (Escape does so too).
 * `fields`: { name, label, value } for a text, { name, label, options: [[value, text], …] } for a choice.
 */
export function ask({ title, text, fields = [], confirm }) {
  const dialog = element("dialog");
  const form = dialog.querySelector("form");
  element("dialog-title").textContent = title;
  element("dialog-text").textContent = text;
  element("dialog-confirm").textContent = confirm;
  element("dialog-confirm").className = "danger";
  element("dialog-fields").replaceChildren(
    ...fields.map(({ name, label, value = "", options }) => {
      const control = options
        ? make("select", { name }, ...options.map(([each, shown]) => make("option", { value: each }, shown)))
        : make("input", { name, value, maxLength: 200, autocomplete: "off" });
      return make("label", {}, label, " ", control);
    }),
  );
  return new Promise((resolve) => {
    let answer = null;
    form.onsubmit = (event) => {
      event.preventDefault();
      answer = Object.fromEntries(new FormData(form));
      dialog.close();
    };
    element("dialog-cancel").onclick = () => dialog.close();
    dialog.onclose = () => resolve(answer);
    dialog.showModal();
  });
}
