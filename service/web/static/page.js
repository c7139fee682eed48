// What every page can do: switch its theme, copy a text, tell a time in the viewer's own zone.

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function switchTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // It holds for this page then.
  }
  // Canvases cannot follow a style by themselves.
  document.dispatchEvent(new CustomEvent("snugnet:theme"));
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    // Without HTTPS there is no clipboard to write to but the selection's.
    getSelection().selectAllChildren(source);
    document.execCommand("copy");
  }
  const before = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = before; }, 1500);
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-theme-switch]")) switchTheme();
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});

document.addEventListener("mouseover", (event) => {
  const time = event.target.closest?.("time[datetime]:not([data-told])");
  if (!time) return;
  time.title = new Date(time.dateTime).toLocaleString();
  time.dataset.told = "";
});
