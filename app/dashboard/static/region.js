// A piece of server-rendered HTML. Replacing it keeps focus, open details and what was filled in but not yet sent, and
// waits while somebody types in it.
const TYPING = "input:not([type=checkbox]), textarea, select";

function filledIn(field) {
  if (field.type === "checkbox") return field.checked !== field.defaultChecked;
  if (field.tagName !== "SELECT") return field.value !== field.defaultValue;
  const original = [...field.options].find((each) => each.defaultSelected) ?? field.options[0];
  return field.value !== original?.value;
}

export default {
  template: `<component :is="tag"></component>`,
  props: { html: String, tag: String },
  mounted() {
    this.$el.innerHTML = this.shown = this.html;
    this.$el.addEventListener("click", this.clicked);
    this.$el.addEventListener("submit", this.submitted);
    this.$el.addEventListener("focusout", () => setTimeout(this.draw, 0));
  },
  updated() {
    this.draw();
  },
  methods: {
    draw() {
      const root = this.$el;
      const active = root.contains(document.activeElement) ? document.activeElement : null;
      if (this.html === this.shown || active?.matches(TYPING)) return;
      const open = [...root.querySelectorAll("details[open][id]")].map((each) => each.id);
      const filled = [...root.querySelectorAll("input[id], textarea[id], select[id]")].filter(filledIn);
      root.innerHTML = this.shown = this.html;
      for (const id of open) document.getElementById(id)?.setAttribute("open", "");
      for (const old of filled) {
        const field = document.getElementById(old.id);
        if (field) old.type === "checkbox" ? (field.checked = old.checked) : (field.value = old.value);
      }
      if (active?.id) document.getElementById(active.id)?.focus({ preventScroll: true });
    },
    clicked(event) {
      const pressed = event.target.closest("[data-do]");
      if (!pressed || pressed.matches("form") || pressed.disabled || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      this.$emit("act", { ...pressed.dataset, ...(pressed.form ? Object.fromEntries(new FormData(pressed.form)) : {}) });
    },
    submitted(event) {
      event.preventDefault();
      const form = event.target;
      this.$emit("act", { ...form.dataset, ...Object.fromEntries(new FormData(form)) });
      if (form.hasAttribute("data-clear")) form.reset();
      if (document.activeElement?.matches(TYPING)) document.activeElement.blur();
    },
  },
};
