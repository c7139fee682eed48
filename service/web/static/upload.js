// Files from the browser to the server: hashed, sent in chunks, checked there, then chosen in a
// field. A chunk that broke off is sent again; what the server has already is not sent.
import { csrfToken, takeToken } from "./page.js";
import { Sha256 } from "./sha256.js";

const READ_BYTES = 8 * 1024 ** 2;
const TRIES = 5;
const NEEDED = /^(config|tokenizer|preprocessor_config|tokenizer_config|special_tokens_map|model\.safetensors\.index)\.json$|^model[^/]*\.safetensors$|^vocab\.txt$|^README\.md$/;
const COLUMNS = ["text", "text_pair", "image", "label"];

class Refused extends Error {
  // `column`: the field of the form that would mend it, where a column was not found.
  constructor(message, column = null) {
    super(message);
    this.column = column;
  }
}

async function ask(method, path, { body, headers = {}, signal } = {}) {
  for (let attempt = 1; ; attempt++) {
    let answer;
    try {
      answer = await fetch(path, {
        method,
        body,
        signal,
        headers: { Accept: "application/json", "X-CSRF-Token": csrfToken(), ...headers },
      });
    } catch (error) {
      if (signal?.aborted || attempt === TRIES) throw error;
      await pause(attempt);
      continue;
    }
    if (answer.status === 204) return null;
    const content = await answer.json().catch(() => ({}));
    if (answer.ok) return content;
    takeToken(answer.headers);
    const isPassing = answer.status >= 500 || answer.status === 429 || content.code === "stale_page";
    if (!isPassing || attempt === TRIES) throw new Refused(reasonOf(content, answer.status), columnOf(content));
    await pause(attempt);
  }
}

const pause = (attempt) => new Promise((resolve) => setTimeout(resolve, 300 * 2 ** attempt));

function reasonOf(problem, status) {
  const told = ({ field, reason }) => (isColumn(field) ? `${reason}. Say below what it is called.` : `${field} ${reason}`);
  const errors = (problem.errors ?? []).map(told);
  if (status === 401) return "Your session has ended: sign in in another tab, then upload again.";
  return errors.join("; ") || problem.detail || `the server answered ${status}`;
}

const isColumn = (field) => COLUMNS.some((column) => field === `data.${column}`);

const columnOf = (problem) => problem.errors?.map((error) => error.field).find(isColumn) ?? null;

function askFor(column) {
  const input = document.getElementById(column);
  input.closest("details").open = true;
  input.focus();
}

async function hashOf(file, tell) {
  const hash = new Sha256();
  for (let start = 0; start < file.size; start += READ_BYTES) {
    hash.update(new Uint8Array(await file.slice(start, start + READ_BYTES).arrayBuffer()));
    tell(Math.min(start + READ_BYTES, file.size));
  }
  return hash.hex();
}

async function send(upload, files, tell, signal) {
  let sent = 0;
  for (const declared of upload.files) {
    const file = files.find((one) => one.name === declared.name);
    const path = `/uploads/${upload.id}/files/${encodeURIComponent(declared.name)}`;
    const isLarge = file.size > upload.chunk_bytes;
    const there = new Set(declared.chunks_received ?? []);
    for (let index = 0, start = 0; index === 0 || start < file.size; index++) {
      const end = isLarge ? Math.min(start + upload.chunk_bytes, file.size) : file.size;
      if (!declared.received && !there.has(index))
        await sendPart(path, file.slice(start, end), isLarge ? index : null, signal);
      sent += end - start;
      start = end;
      tell(sent);
    }
  }
}

async function sendPart(path, blob, index, signal) {
  const headers = { "Content-Type": "application/octet-stream" };
  if (index === null) return ask("PUT", path, { body: blob, headers, signal });
  const digest = new Sha256().update(new Uint8Array(await blob.arrayBuffer())).digest();
  headers["Content-Digest"] = `sha-256=:${btoa(String.fromCharCode(...digest))}:`;
  return ask("PUT", `${path}/chunks/${index}`, { body: blob, headers, signal });
}

async function finalize(id, tell, signal) {
  for (;;) {
    const upload = await ask("POST", `/uploads/${id}/finalize?wait_s=5`, { signal });
    if (upload.state === "ready") return upload;
    const amount = upload.progress?.total ? ` ${upload.progress.done} of ${upload.progress.total} ${upload.progress.unit}` : "";
    tell(`The server is ${upload.state}${amount} …`);
    await pause(0);
  }
}

function declaration(kind, form) {
  const value = (name) => form.elements[name]?.value.trim() || null;
  const declared = { kind };
  if (kind === "model") return declared;
  declared.task = value("task");
  for (const column of COLUMNS) declared[column] = value(`data.${column}`);
  return declared;
}

function optionText(upload, names) {
  const summary = upload.summary ?? {};
  if (summary.shape) return `${summary.shape.family}, ${summary.shape.num_layers} layers of ${summary.shape.embed_dim} (${upload.id})`;
  return `${names[0] ?? "data"}, ${(summary.num_rows ?? 0).toLocaleString("en")} rows (${upload.id})`;
}

function choose(box, upload, names) {
  const select = document.getElementById(box.dataset.into);
  const option = select.querySelector(`option[value="${upload.id}"]`) ?? new Option("", upload.id);
  option.textContent = optionText(upload, names);
  select.append(option);
  select.value = upload.id;
  select.removeAttribute("aria-invalid");
  select.dispatchEvent(new Event("change", { bubbles: true }));
}

async function run(box, work) {
  const status = box.querySelector("[data-status]");
  const bar = box.querySelector("[data-progress]");
  const stop = box.querySelector("[data-stop]");
  const buttons = box.querySelectorAll("[data-send], [data-fetch]");
  const abort = new AbortController();
  const tell = (text, share = null) => {
    status.textContent = text;
    bar.hidden = share === null;
    if (share !== null) bar.firstElementChild.value = share;
  };
  stop.onclick = () => abort.abort();
  stop.hidden = false;
  status.classList.remove("error");
  for (const button of buttons) button.disabled = true;
  let id = null;
  try {
    await work(tell, abort.signal, (created) => { id = created; });
  } catch (error) {
    const isOwn = error instanceof Refused;
    tell(abort.signal.aborted ? "Stopped; nothing was kept." : isOwn ? error.message : `The connection broke off: ${error.message}`);
    if (!abort.signal.aborted) status.classList.add("error");
    if (error.column) askFor(error.column);
    if (id !== null) ask("DELETE", `/uploads/${id}`).catch(() => {}); // else it is swept up later
  } finally {
    stop.hidden = true;
    for (const button of buttons) button.disabled = false;
  }
}

function sendFiles(box) {
  const input = box.querySelector("[data-files]");
  const { upload: kind } = box.dataset;
  const all = [...input.files];
  const files = kind === "model" ? all.filter((file) => NEEDED.test(file.name)) : all;
  return run(box, async (tell, signal, created) => {
    if (!all.length) throw new Refused("Choose files first.");
    if (!files.length) throw new Refused("None of these is a file of a model: model.safetensors, config.json and the tokenizer's are needed.");
    const total = files.reduce((sum, file) => sum + file.size, 0) || 1;
    const declared = declaration(kind, box.closest("form"));
    declared.files = [];
    let read = 0;
    for (const file of files) {
      const sha256 = await hashOf(file, (done) => tell(`Reading ${file.name} …`, (read + done) / total));
      if (signal.aborted) throw new Refused("");
      declared.files.push({ name: file.name, size_bytes: file.size, sha256 });
      read += file.size;
    }
    const headers = { "Content-Type": "application/json" };
    const upload = await ask("POST", "/uploads", { body: JSON.stringify(declared), headers, signal });
    created(upload.id);
    await send(upload, files, (sent) => tell("Sending …", sent / total), signal);
    tell("The server checks it …");
    const ready = await finalize(upload.id, tell, signal);
    choose(box, ready, files.map((file) => file.name));
    tell("Uploaded, checked and chosen above.");
  });
}

function fetchFromHub(box) {
  const { upload: kind } = box.dataset;
  return run(box, async (tell, signal, created) => {
    const repo = box.querySelector("[data-repo]").value.trim();
    const file = box.querySelector("[data-hub-file]")?.value.trim() || null;
    if (!repo) throw new Refused("Name a repository first.");
    const body = JSON.stringify({ ...declaration(kind, box.closest("form")), hub: { repo, file } });
    const headers = { "Content-Type": "application/json" };
    const upload = await ask("POST", "/uploads", { body, headers, signal });
    created(upload.id);
    tell("The server fetches it …");
    choose(box, await finalize(upload.id, tell, signal), [file ?? repo]);
    tell("Fetched, checked and chosen above.");
  });
}

document.addEventListener("click", (event) => {
  const box = event.target.closest("[data-upload]");
  if (box && event.target.closest("[data-send]")) sendFiles(box);
  if (box && event.target.closest("[data-fetch]")) fetchFromHub(box);
});
