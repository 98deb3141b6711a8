// The list of models: searches as one types, and renews the list when models have come.

const form = document.getElementById("search");
const box = document.getElementById("q");
const WAIT = 120; // milliseconds without a key

let timer = 0;
let running = null;

async function show(query, { keep = false } = {}) {
  running?.abort();
  const mine = (running = new AbortController());
  let text;
  try {
    // The whole URL: fetch refuses a user and password, which the address of this page may have.
    const answer = await fetch(`${location.origin}/.page/models${query}`, { signal: mine.signal });
    if (!answer.ok) return;
    text = await answer.text();
  } catch {
    return; // a later search has taken its place, or the server is not there
  }
  const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("results");
  const focused = document.activeElement?.closest("#results") && document.activeElement.getAttribute("href");
  document.getElementById("results").replaceWith(fresh);
  if (focused) (fresh.querySelector(`a[href="${CSS.escape(focused)}"]`) ?? box).focus();
  if (!keep) document.getElementById("said").textContent = document.getElementById("count").textContent;
}

// All searches are links: the address is that of the list without scripts.
function go(query, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", `/${query}`);
  return show(query);
}

function takeFromAddress() {
  const terms = new URLSearchParams(location.search);
  box.value = terms.get("q") ?? "";
  for (const old of form.querySelectorAll("input[type=hidden]")) old.remove();
  for (const [name, value] of terms) {
    if (name !== "label" && name !== "sort") continue;
    const field = document.createElement("input");
    Object.assign(field, { type: "hidden", name, value });
    form.append(field);
  }
}

function typed() {
  const terms = new URLSearchParams(new FormData(form));
  if (!terms.get("q")) terms.delete("q");
  return go(terms.size ? `?${terms}` : "", { replace: true });
}

box.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(typed, WAIT);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(timer);
  typed();
});
document.addEventListener("click", (event) => {
  const link = event.target.closest("#results a");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || link.pathname !== "/") return;
  event.preventDefault();
  go(link.search).then(takeFromAddress);
});
addEventListener("popstate", () => {
  takeFromAddress();
  show(location.search);
});
addEventListener("bentofs:imported", () => show(location.search, { keep: true }));
