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

// What refreshes itself rests while nobody sees it.
document.addEventListener("htmx:before:request", (event) => {
  if (document.hidden && event.target.closest?.("[data-poll]")) event.preventDefault();
});

// The page is of an earlier session: what was typed stays, and the next try is of the new one.
document.addEventListener("htmx:after:request", (event) => {
  takeToken(event.detail?.ctx?.response?.headers);
});

export function csrfToken() {
  return document.querySelector('meta[name="csrf-token"]')?.content ?? "";
}

export function takeToken(headers) {
  const token = headers?.get?.("X-CSRF-Token");
  if (!token) return;
  document.querySelector('meta[name="csrf-token"]').content = token;
  document.body.setAttribute("hx-headers:inherited", JSON.stringify({ "X-CSRF-Token": token }));
  for (const input of document.querySelectorAll('input[name="csrf_token"]')) input.value = token;
}
