// The record of imports, live. A hidden tab takes no events: browsers allow few connections to one server.

const list = document.getElementById("imports");
const limit = location.pathname === "/" ? 5 : 100;
let since = list.dataset.since;
let source = null;

function take(event) {
  since = event.lastEventId;
  const told = JSON.parse(event.data);
  const fresh = new DOMParser().parseFromString(told.html, "text/html").querySelector("li");
  const old = document.getElementById(fresh.id);
  if (old) {
    old.replaceWith(fresh);
  } else {
    fresh.classList.add("new");
    list.prepend(fresh);
    while (list.children.length > limit) list.lastElementChild.remove();
  }
  document.getElementById("no-imports").hidden = true;
  if (told.ended) document.getElementById("said").textContent = fresh.querySelector(".what").textContent.trim();
  if (told.successful) dispatchEvent(new Event("bentofs:imported"));
}

function listen() {
  if (document.hidden) {
    source?.close();
    source = null;
  } else if (!source) {
    source = new EventSource(`/.page/events?since=${since}`);
    source.addEventListener("import", take);
  }
}

document.addEventListener("visibilitychange", listen);
addEventListener("pagehide", () => source?.close());
listen();
