"use strict";

const byId = (id) => document.getElementById(id);
const limits = document.body.dataset;
const FAULTS = {
  empty: "The model gave no answer.",
  cut: "Cut at the longest answer that is generated.",
  non_finite: "The model's output is not a number.",
};
let picture = null;
let busy = false;

// Text is only ever set as text: names and answers may hold anything.
function element(name, text, style) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (style) made.className = style;
  return made;
}

function fail(message) {
  byId("error").textContent = message;
  if (message) byId("status").textContent = "";
  byId("error").hidden = !message;
}

function choose(file) {
  if (!file) return;
  fail("");
  if (file.size > Number(limits.maxUpload)) {
    fail(`The picture file is too large: at most ${limits.maxUpload / 1e6} MB are taken. Scale it down.`);
    return;
  }
  picture = file;
  // Answers about another picture would be taken for this one's.
  byId("result").hidden = true;
  const preview = byId("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.hidden = false;
  preview.alt = `Chosen picture: ${file.name || "pasted"}`;
  preview.onerror = () => { preview.hidden = true; };
  byId("hint").firstElementChild.textContent = "Choose another picture";
  byId("status").textContent = `Picture chosen: ${file.name || "pasted"}`;
}

function encoded(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(String(reader.result).split(",", 2)[1] || "");
    reader.onerror = () => failed(new Error("The picture cannot be read. Choose it again."));
    reader.readAsDataURL(file);
  });
}

function side(place, title, found) {
  const parts = [element("h3", title), element("p", found.answer || "–", "answer")];
  const note = [FAULTS[found.fault], `Answered in ${found.seconds.toFixed(1)} s.`].filter(Boolean).join(" ");
  parts.push(element("small", note));
  if (found.nearest.length) {
    parts.push(element("h4", "Nearest known people"));
    const list = element("ol", undefined, "near");
    list.setAttribute("role", "list");
    for (const person of found.nearest) {
      const row = element("li");
      const image = element("img");
      image.alt = "";
      image.src = person.thumbnail;
      row.append(image, element("span", person.name), element("span", person.similarity.toFixed(2).replace("-", "\u2212"), "value"));
      list.append(row);
    }
    parts.push(list);
  }
  byId(place).replaceChildren(...parts);
}

function show(question, found) {
  byId("asked").textContent = question;
  side("before", found.after ? "Before" : "Answer", found.before);
  if (found.after) {
    side("after", "After", found.after);
    const shift = `${(100 * found.shift).toFixed(found.shift < 0.1 ? 1 : 0)} %`;
    byId("shift").textContent = `The picture's mean visual token moved by ${shift} of its squared length.`;
  }
  byId("result").hidden = false;
  byId("asked").focus({ preventScroll: true });
  byId("result").scrollIntoView({ block: "nearest" });
}

async function ask(event) {
  event.preventDefault();
  if (busy) return;
  fail("");
  const question = byId("question").value.trim();
  if (!picture) return fail("Choose a picture first, or drop it on the page.");
  if (!question) return fail("The question is empty. Type one, such as: Who is this person?");
  busy = true;
  const asked = picture;
  byId("go").setAttribute("aria-disabled", "true");
  byId("status").textContent = "Asking …";
  byId("result").setAttribute("aria-busy", "true");
  try {
    const body = JSON.stringify({ picture: await encoded(asked), question });
    const headers = { "content-type": "application/json" };
    const response = await fetch("/ask", { method: "POST", headers, body });
    const found = await response.json();
    if (!response.ok) throw new Error(found.error);
    if (asked !== picture) return (byId("status").textContent = "Another picture was chosen. Ask again.");
    show(question, found);
    byId("status").textContent = "Answered.";
  } catch (error) {
    const lost = error instanceof TypeError || error instanceof SyntaxError;
    const text = lost ? "the server does not answer. Is `unsee serve` still running?" : error.message;
    fail(text.charAt(0).toUpperCase() + text.slice(1));
  } finally {
    busy = false;
    byId("go").removeAttribute("aria-disabled");
    byId("result").removeAttribute("aria-busy");
  }
}

byId("ask").addEventListener("submit", ask);
byId("picture").addEventListener("change", (event) => choose(event.target.files[0]));
byId("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ask").requestSubmit();
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  window.addEventListener(name, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") choose(event.dataTransfer.files[0]);
  });
}
window.addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
