// Keeps a job's page up to date: the server tells what happened, and the parts are fetched again.
// The stream goes on after the last event that was seen, also when the server was away.

const root = document.querySelector("#live[data-stream]");
const LEAST_MS = 1000; // between two refreshes
const PATIENCE_MS = 30000;

class Live {
  constructor() {
    this.seen = Number(root.dataset.after);
    this.pause = 1000;
    this.lastMs = 0;
    this.connect();
    addEventListener("pagehide", () => this.source?.close());
    addEventListener("pageshow", (event) => event.persisted && this.connect());
  }

  connect() {
    this.source?.close();
    const source = (this.source = new EventSource(`${root.dataset.stream}?after=${this.seen}`));
    source.addEventListener("open", () => {
      this.pause = 1000;
      this.tell("Live: this page follows the job.");
      this.refreshSoon(); // what changed before the stream began, and between two of them
    });
    source.addEventListener("message", (message) => this.take(JSON.parse(message.data)));
    source.addEventListener("end", () => {
      source.close();
      this.isOver = true;
      location.reload(); // what can be asked of a job that has ended is another thing
    });
    source.addEventListener("error", () => {
      if (this.isOver) return;
      this.tell("The server is away; trying again.");
      if (source.readyState !== EventSource.CLOSED) return; // the browser comes again by itself
      setTimeout(() => this.connect(), this.pause);
      this.pause = Math.min(2 * this.pause, PATIENCE_MS);
    });
  }

  take(event) {
    if (event.seq <= this.seen) return;
    this.seen = event.seq;
    if (event.kind !== "evaluation") log(event);
    this.refreshSoon();
  }

  tell(words) {
    this.words = words;
    const status = document.getElementById("live-status");
    if (status && status.textContent !== words) status.textContent = words;
  }

  refreshSoon() {
    if (this.timer) return;
    // A page with many points takes its time; most of it is to be left to whoever looks.
    this.timer = setTimeout(() => this.refresh(), Math.max(LEAST_MS, 8 * this.lastMs));
  }

  async refresh() {
    const began = performance.now();
    try {
      const answer = await fetch(root.dataset.refresh, { headers: { Accept: "text/html" } });
      if (answer.redirected || answer.status === 401) return location.reload();
      if (answer.ok) renew(new DOMParser().parseFromString(await answer.text(), "text/html"));
      this.tell(this.words || "");
    } catch {
      // The stream notices too, and brings the next refresh.
    } finally {
      this.lastMs = performance.now() - began;
      this.timer = null;
    }
  }
}

function renew(fresh) {
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const old = document.getElementById(part.id);
    if (!old || old.innerHTML === part.innerHTML || isInUse(old)) continue;
    old.replaceChildren(...part.childNodes);
  }
  const charts = document.querySelector("[data-charts]");
  let before = null;
  for (const figure of fresh.querySelectorAll("[data-charts] > figure")) {
    before = renewChart(charts, figure, before);
  }
  if (before) charts.querySelectorAll(":scope > p").forEach((note) => note.remove());
  window.snugnetCharts.mount(charts);
}

function renewChart(charts, figure, before) {
  const old = document.getElementById(figure.id);
  if (!old) {
    charts.insertBefore(figure, before ? before.nextSibling : charts.firstChild);
    return figure;
  }
  const [data, newData] = [old, figure].map((one) => one.querySelector("script.chart-data"));
  if (data.textContent === newData.textContent) return old;
  data.textContent = newData.textContent;
  const [details, newDetails] = [old, figure].map((one) => one.querySelector("details"));
  const top = details.querySelector(".table-wrap")?.scrollTop;
  newDetails.open = details.open;
  details.replaceWith(newDetails);
  if (top) newDetails.querySelector(".table-wrap").scrollTop = top;
  window.snugnetCharts.update(old, JSON.parse(data.textContent));
  return old;
}

// Nobody wants a field or a button to go while it has the focus.
function isInUse(part) {
  return part.contains(document.activeElement) && document.activeElement !== document.body;
}

function log(event) {
  const rows = document.getElementById("log-rows");
  if (!rows || document.getElementById(`event-${event.seq}`)) return;
  const row = document.createElement("tr");
  row.id = `event-${event.seq}`;
  const at = document.createElement("time");
  const moment = new Date(1000 * event.at);
  at.dateTime = moment.toISOString();
  const day = moment.toLocaleString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
  at.textContent = `${day}, ${moment.toISOString().slice(11, 19)}`;
  const kind = document.createElement("span");
  kind.textContent = event.kind;
  if (event.level === "warning" || event.level === "error") {
    kind.className = "badge";
    kind.dataset.state = event.level;
  }
  for (const [content, name] of [[at, "nowrap tabular"], [kind, ""], [event.message, "told"]]) {
    const cell = document.createElement("td");
    cell.className = name;
    cell.append(content);
    row.append(cell);
  }
  rows.prepend(row);
}

if (root) new Live();
