// On every page: copies lines, measures archives and computes sums when asked.

document.documentElement.classList.add("live");

function say(text) {
  document.getElementById("said").textContent = text;
}

function sizeText(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  let amount = bytes;
  for (const unit of ["kB", "MB", "GB", "TB", "PB"]) {
    amount /= 1000;
    if (amount < 999.95 || unit === "PB") return `${amount.toFixed(1)} ${unit}`;
  }
}

function plainButton(text, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  button.textContent = text;
  button.addEventListener("click", act);
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Browsers have the clipboard above only for HTTPS and for this machine.
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function makeCopyable(box) {
  const code = box.querySelector("code");
  const button = plainButton("Copy", async () => {
    await copy(code.textContent);
    button.textContent = "Copied";
    say("Copied");
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  button.setAttribute("aria-describedby", box.getAttribute("aria-labelledby"));
  box.append(button);
}

// An archive is compressed once to find its size. (fetch refuses a user and password, which the address of this page may
// have: so URLs are whole.)
function makeMeasurable(cell) {
  const button = plainButton("Measure", async () => {
    button.disabled = true;
    button.textContent = "Measuring …";
    const answer = await fetch(location.origin + cell.dataset.measure, { method: "HEAD" }).catch(() => null);
    const size = answer && answer.ok ? Number(answer.headers.get("Content-Length")) : NaN;
    cell.textContent = Number.isNaN(size) ? "cannot be measured now" : sizeText(size);
    say(cell.textContent);
  });
  button.setAttribute("aria-label", "Measure the size");
  cell.replaceChildren("unknown ", button);
}

function makeSummable(link) {
  link.addEventListener("click", async (event) => {
    event.preventDefault();
    link.textContent = "computing …";
    const answer = await fetch(location.origin + link.pathname).catch(() => null);
    if (!answer || !answer.ok) {
      link.textContent = "cannot be computed now";
      return;
    }
    const code = document.createElement("code");
    code.className = "sum";
    code.textContent = (await answer.text()).split(" ")[0];
    link.replaceWith(code);
    say("The SHA-256 is there");
  });
}

// A proxy may be known by another address than this server knows itself by.
for (const code of document.querySelectorAll("[data-origin]")) {
  code.textContent = code.textContent.replaceAll(code.dataset.origin, location.origin);
}
document.querySelectorAll("[data-copy]").forEach(makeCopyable);
document.querySelectorAll("[data-measure]").forEach(makeMeasurable);
document.querySelectorAll("[data-sum]").forEach(makeSummable);
