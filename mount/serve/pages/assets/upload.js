// Uploads: drop files, or choose them. One after the other goes to incoming/, and its outcome is told.

const form = document.getElementById("upload");
const input = document.getElementById("files");
const list = document.getElementById("uploads");
const waiting = [];
let isSending = false;

function say(text) {
  document.getElementById("said").textContent = text;
}

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function button(text, act) {
  const made = element("button", text, "plain");
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

class Upload {
  constructor(file) {
    this.file = file;
    this.item = element("li");
    this.line = element("div", "", "line");
    this.bar = element("progress");
    this.bar.max = 1;
    this.bar.setAttribute("aria-label", `Progress of ${file.name}`);
    this.told = element("p", "Waiting", "quiet small");
    this.stop = button("Cancel", () => this.cancel());
    this.stop.setAttribute("aria-label", `Cancel ${file.name}`);
    this.line.append(element("bdi", file.name), this.stop);
    this.item.append(this.line, this.bar, this.told);
    list.append(this.item);
  }

  send() {
    return new Promise((done) => {
      if (this.isCancelled) return done();
      const request = (this.request = new XMLHttpRequest());
      request.open("PUT", `/incoming/${encodeURIComponent(this.file.name)}`);
      request.upload.addEventListener("progress", (event) => this.progress(event));
      request.addEventListener("load", () => this.answered(request));
      request.addEventListener("error", () => this.failed());
      request.addEventListener("abort", () => this.end("Cancelled", "quiet"));
      request.addEventListener("loadend", done);
      request.send(this.file);
    });
  }

  progress(event) {
    if (!event.lengthComputable) return;
    this.bar.value = event.total ? event.loaded / event.total : 1;
    // The last bytes are on their way: the server has still to decide.
    this.told.textContent = event.loaded < event.total ? `${Math.floor((100 * event.loaded) / event.total)} %` : "Importing …";
  }

  answered(request) {
    let told = {};
    try {
      told = JSON.parse(request.responseText);
    } catch {
      // a sentence
    }
    if (request.status >= 300) {
      const sentence = request.responseText.trim() || `${request.status} ${request.statusText}`;
      this.end(sentence, "bad");
    } else if (told.tag) {
      this.end(told.note ? `${told.outcome}. ${told.note}` : told.outcome, "good", told.tag);
      dispatchEvent(new Event("bentofs:imported"));
    } else {
      this.end("The file is in incoming/. It is no archive of a model.", "quiet");
    }
  }

  failed() {
    this.end("The connection broke. The server may tell more in its record.", "bad");
    this.line.append(button("Send again", () => {
      this.item.remove();
      add([this.file]);
    }));
  }

  cancel() {
    this.isCancelled = true;
    if (this.request) this.request.abort();
    else this.end("Cancelled", "quiet");
  }

  end(text, kind, tag = "") {
    this.stop.remove();
    this.bar.remove();
    this.told.className = `${kind} outcome`;
    this.told.textContent = text;
    if (tag) {
      const link = element("a", tag);
      link.href = `/models/${tag.split(":").map(encodeURIComponent).join("/")}/`;
      this.told.prepend(link, " ");
    }
    say(`${this.file.name}: ${this.told.textContent}`);
  }
}

async function add(files) {
  for (const file of files) waiting.push(new Upload(file));
  if (isSending) return;
  isSending = true;
  while (waiting.length) await waiting.shift().send();
  isSending = false;
}

function refuseFolder(name) {
  const item = element("li");
  const told = element("p", "A directory cannot be sent: make a .zip or .tar.gz of it.", "bad outcome");
  item.append(element("bdi", name), told);
  list.append(item);
  say(`${name}: ${told.textContent}`);
}

function takeDropped(transfer) {
  const files = [];
  for (const item of transfer.items) {
    const entry = item.webkitGetAsEntry?.();
    if (entry?.isDirectory) refuseFolder(entry.name);
    else if (item.kind === "file") files.push(item.getAsFile());
  }
  add(files);
}

input.addEventListener("change", () => {
  add([...input.files]);
  input.value = "";
});
form.addEventListener("submit", (event) => event.preventDefault());

// The whole page takes files: a file that falls beside the box must not replace the page.
let depth = 0;
addEventListener("dragenter", (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  depth += 1;
  form.classList.add("over");
});
addEventListener("dragleave", () => {
  depth = Math.max(0, depth - 1);
  if (!depth) form.classList.remove("over");
});
addEventListener("dragover", (event) => {
  if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
});
addEventListener("drop", (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  depth = 0;
  form.classList.remove("over");
  takeDropped(event.dataTransfer);
});
addEventListener("beforeunload", (event) => {
  if (isSending) event.preventDefault();
});
