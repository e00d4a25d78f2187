// Runs before the first paint: the theme that was chosen here last; none follows the system.
const KEY = "sluice-theme";
function theme() {
  try {
    return localStorage.getItem(KEY) || "";
  } catch {
    return "";
  }
}
function apply(chosen) {
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
  const buttons = document.querySelectorAll("[data-choose-theme]");
  for (const each of buttons) each.setAttribute("aria-pressed", String(each.dataset.chooseTheme === chosen));
  return buttons.length > 0;
}
document.documentElement.lang = "en";
apply(theme());
new MutationObserver((_, observer) => apply(theme()) && observer.disconnect()) // the buttons come later
  .observe(document, { childList: true, subtree: true });
document.addEventListener("click", async (event) => {
  const chosen = event.target.closest?.("[data-choose-theme]")?.dataset.chooseTheme;
  if (chosen !== undefined) {
    apply(chosen);
    try {
      localStorage.setItem(KEY, chosen);
    } catch {
      // a browser that keeps nothing has switched all the same
    }
  }
  const copied = event.target.closest?.("[data-copy]");
  if (copied) {
    await navigator.clipboard?.writeText(copied.dataset.copy);
    copied.textContent = "Copied";
  }
});
