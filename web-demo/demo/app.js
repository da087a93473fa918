// The demo page: live readings over Tidegate's WebSocket door (docs/PROTOCOL.md, "WebSocket"), with nothing but what
// a browser has. The part to copy is Subscription: it loses nothing across a broken connection, because it keeps
//
//   base    where the log was when the subscription's replay was complete: a bookmark over all lanes
//   lanes   the last position received in each lane since
//
// and asks for everything strictly after both. A position is "<lane>.<order>"; of two in one lane the greater
// string is the later.

const PROTOCOL = "tidegate.v1.json";
const BACKOFF_MS = { first: 250, most: 10_000 };
const STEADY_MS = 5_000; // a connection that has lived so long starts the back-off anew
const HANDSHAKE_MS = 10_000;

class Subscription {
  // `on`: state(name, detail), message(msg, replayed: null, "replay" or "retained"), gap(gap), note(text)
  constructor(url, on) {
    this.url = url;
    this.on = on;
    this.attempt = 0;
    this.requests = new Map();
    this.nextId = 1;
    this.pingMs = 25_000;
  }

  // Subscribes anew; from: "live" or "earliest".
  start(topic, from) {
    this.topic = topic;
    this.from = from;
    this.base = null;
    this.lanes = new Map();
    if (this.socket?.readyState === WebSocket.OPEN && this.greeted) {
      // The same connection: give the old filter up first, its `ok` is the border between old and new.
      const before = this.subscribed;
      this.subscribed = null;
      const next = () => this.subscribe();
      if (before) this.ask({ unsub: { topic: before } }, next, next);
      else this.subscribe();
    } else {
      this.retryAt(0);
    }
  }

  // --- the connection -----------------------------------------------------------------------------------------

  connect() {
    this.drop();
    this.on.state("connecting", "");
    const socket = new WebSocket(this.url, PROTOCOL);
    this.socket = socket;
    this.greeted = false;
    this.subscribed = null;
    this.bye = null;
    this.openedAt = 0;
    socket.onopen = () => {
      this.openedAt = performance.now();
      this.ask({ hello: {} }, (ok) => {
        this.pingMs = ok.ping_ms ?? this.pingMs;
        this.node = ok.node;
        this.greeted = true;
        this.subscribe();
      });
    };
    socket.onmessage = (event) => {
      this.expect(2 * this.pingMs + 5_000);
      for (const line of event.data.split("\n")) this.take(JSON.parse(line));
    };
    socket.onclose = (event) => this.closed(event.code);
    this.expect(HANDSHAKE_MS);
  }

  // The server is never silent for longer than its heartbeat. When it is, the connection is dead, whatever TCP
  // believes.
  expect(ms) {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => {
      this.on.note(`no sign of life for ${Math.round(ms / 1000)} s`);
      this.closed(1006);
    }, ms);
  }

  drop() {
    clearTimeout(this.watchdog);
    clearTimeout(this.retry);
    this.requests.clear();
    if (!this.socket) return;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close(1000);
    this.socket = null;
  }

  closed(code) {
    if (this.openedAt && performance.now() - this.openedAt > STEADY_MS) this.attempt = 0;
    const bye = this.bye;
    for (const { failed } of this.requests.values()) failed?.({ code: "unavailable", detail: "the connection is gone" });
    this.drop();
    if (code >= 4100 && code <= 4299) {
      const why = code < 4200 ? "needs a new token" : "the server asks not to come back";
      this.on.state("ended", `${why} (${code})`);
      return;
    }
    const ceiling = Math.min(BACKOFF_MS.most, BACKOFF_MS.first * 2 ** this.attempt++);
    this.retryAt(bye?.retry_ms ?? ceiling * (0.5 + Math.random() / 2), code, bye?.why);
  }

  retryAt(ms, code, why) {
    clearTimeout(this.retry);
    if (code) {
      this.on.state("waiting", `again in ${(ms / 1000).toFixed(1)} s`);
      this.on.note(`connection lost (${code}${why ? ", " + why : ""}); again in ${Math.round(ms)} ms`);
    }
    this.retry = setTimeout(() => this.connect(), ms);
  }

  // The network is back: no need to wait any longer.
  hurry() {
    if (!this.socket && this.topic) {
      this.attempt = 0;
      this.retryAt(0);
    }
  }

  // --- requests -----------------------------------------------------------------------------------------------

  ask(request, done, failed) {
    if (this.socket?.readyState !== WebSocket.OPEN) {
      failed?.({ code: "unavailable", detail: "not connected" });
      return;
    }
    const id = this.nextId++;
    this.requests.set(id, { done, failed });
    this.socket.send(JSON.stringify({ id, ...request }));
  }

  subscribe() {
    const topic = this.topic;
    // A live subscription first gets what is retained; who has not seen its end begins again.
    const resumed = this.base !== null || (this.from !== "live" && this.lanes.size > 0);
    const from = resumed ? { after: [this.base, ...this.lanes.values()].filter((place) => place !== null) } : this.from;
    this.replaying = from !== "live";
    this.ask({ sub: { topic, from } }, (ok) => {
      this.subscribed = topic;
      this.on.state("replay", "");
      this.on.note(resumed ? `resumed "${topic}": ${ok.replay ?? 0} to replay` : `subscribed to "${topic}" from ${from}`);
    }, (error) => {
      this.on.state("ended", `${error.code} ${error.detail ?? ""}`);
      this.on.note(`"${topic}" was refused: ${error.code} ${error.detail ?? ""}`);
    });
  }

  publish(topic, text, done, failed) {
    let pub = { topic, text };
    try {
      pub = { topic, data: JSON.parse(text) };
    } catch { /* not JSON: text */ }
    this.ask({ pub }, done, failed);
  }

  // --- what comes ---------------------------------------------------------------------------------------------

  take(item) {
    if (item.msg) this.takeMessage(item);
    else if (item.live) this.takeLive(item.live);
    else if (item.gap) this.on.gap(item.gap);
    else if (item.bye) this.bye = item.bye;
    else if (item.end) this.on.note(`subscription to "${item.end.topic}" ended: ${item.end.code}`);
    else if (item.id !== undefined) {
      const request = this.requests.get(item.id);
      this.requests.delete(item.id);
      if (item.ok) request?.done?.(item.ok);
      else if (item.err) request?.failed?.(item.err);
    } else if (item.err) this.on.note(`error: ${item.err.code} ${item.err.detail ?? ""}`);
  }

  takeMessage(item) {
    if (!this.subscribed) return; // of the filter that was just given up
    const { msg } = item;
    if (!msg.retained) {
      const lane = msg.pos.slice(0, msg.pos.lastIndexOf("."));
      if (this.lanes.has(lane) && msg.pos <= this.lanes.get(lane)) return;
      this.lanes.set(lane, msg.pos);
    }
    this.on.message(msg, msg.retained ? "retained" : this.replaying ? "replay" : null);
  }

  takeLive(live) {
    if (live.topic !== this.subscribed) return;
    this.base = live.pos;
    this.lanes.clear();
    this.replaying = false;
    this.on.state("live", this.node ? `at node ${this.node}` : "");
  }
}

// --- the page -----------------------------------------------------------------------------------------------------

const CARDS_MAX = 60;
const EVENTS_MAX = 200;
const FRESH_MAX = 2_000;
const LOG_MAX = 50;
const SPARK_POINTS = 60;
const byId = (id) => document.getElementById(id);

const cards = new Map(); // topic -> card, oldest update first
let fresh = []; // messages that are not painted yet, at most FRESH_MAX
const totals = { messages: 0, reconnects: 0, gaps: 0, second: 0, latencies: [] };
let painting = false;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function clock(ms) {
  return new Date(ms).toLocaleTimeString([], { hour12: false }) + "." + String(ms % 1000).padStart(3, "0");
}

function payloadText(msg) {
  if ("data" in msg) return JSON.stringify(msg.data);
  return "text" in msg ? msg.text : `${Math.floor((msg.b64.length * 3) / 4)} bytes, base64 ${msg.b64}`;
}

// The number to draw: the payload itself, or the first number in it.
function reading(value) {
  if (typeof value === "number") return { name: "", value };
  if (value === null || typeof value !== "object") return null;
  for (const [name, inner] of Object.entries(value)) {
    if (typeof inner === "number") return { name, value: inner };
  }
  return null;
}

function makeCard(topic) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 120 32");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  svg.append(line);
  const value = element("p", { className: "value" });
  const meta = element("p", { className: "meta" });
  const root = element("article", { className: "card" }, element("h3", { textContent: topic, title: topic }), value, svg, meta);
  root.dataset.topic = topic;
  return { root, value, meta, line, points: [], count: 0 };
}

function updateCard(msg) {
  let card = cards.get(msg.topic);
  if (card) {
    cards.delete(msg.topic);
  } else {
    card = makeCard(msg.topic);
    byId("cards").append(card.root);
    if (cards.size >= CARDS_MAX) {
      const [oldest, gone] = cards.entries().next().value;
      gone.root.remove();
      cards.delete(oldest);
    }
  }
  cards.set(msg.topic, card);
  card.count++;
  card.msg = msg;
  const number = reading("data" in msg ? msg.data : Number.parseFloat(msg.text));
  if (number && Number.isFinite(number.value)) {
    card.points.push(number.value);
    if (card.points.length > SPARK_POINTS) card.points.shift();
    card.number = number;
  } else {
    card.number = null;
  }
  return card;
}

function paintCard(card) {
  const { number, points, msg } = card;
  const text = number ? String(Math.round(number.value * 1e6) / 1e6) : payloadText(msg);
  card.value.replaceChildren(text.length > 80 ? text.slice(0, 80) + "…" : text);
  card.value.classList.toggle("long", text.length > 10);
  if (number?.name) card.value.append(element("small", { textContent: number.name }));
  card.meta.textContent = `${card.count} message${card.count === 1 ? "" : "s"}, last ${clock(msg.ts)}`;
  const least = Math.min(...points);
  const span = Math.max(...points) - least || 1;
  const step = 120 / Math.max(1, points.length - 1);
  card.line.setAttribute("points", points.length < 2 ? "" : points.map((value, index) =>
    `${(index * step).toFixed(1)},${(29 - (26 * (value - least)) / span).toFixed(1)}`).join(" "));
}

function row({ msg, replayed, latency }) {
  const text = payloadText(msg);
  const made = element("tr", {},
    element("td", { textContent: clock(msg.ts) }),
    element("td", { textContent: msg.topic, className: "topic" }),
    element("td", { textContent: text.length > 200 ? text.slice(0, 200) + "…" : text, className: "payload" }),
    element("td", { textContent: replayed ?? `${latency} ms`, className: "right" }),
    element("td", { textContent: "…" + msg.pos.slice(-8), className: "pos", title: msg.pos }));
  made.dataset.pos = msg.pos;
  if (replayed) made.className = "replayed";
  return made;
}

// Once a frame, whatever came: a fast stream costs the browser one paint.
function paint() {
  painting = false;
  const touched = new Set(fresh.map((item) => updateCard(item.msg)));
  touched.forEach(paintCard);
  const body = byId("events");
  body.prepend(...fresh.slice(-EVENTS_MAX).reverse().map(row));
  while (body.rows.length > EVENTS_MAX) body.deleteRow(-1);
  fresh = [];
  byId("empty").hidden = cards.size > 0;
  byId("count").textContent = totals.messages.toLocaleString();
}

function schedulePaint() {
  if (painting) return;
  painting = true;
  // A hidden page gets no animation frames.
  if (document.hidden) setTimeout(paint, 200);
  else requestAnimationFrame(paint);
}

function note(text) {
  const list = byId("log");
  list.prepend(element("li", {}, element("time", { textContent: clock(Date.now()) }), " " + text));
  while (list.children.length > LOG_MAX) list.lastChild.remove();
}

const url = `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/ws`;
const subscription = new Subscription(url, {
  state(name, detail) {
    const state = byId("state");
    if (name === "waiting") byId("reconnects").textContent = ++totals.reconnects;
    state.dataset.state = name;
    state.querySelector("b").textContent = name;
    byId("state-detail").textContent = detail;
  },
  message(msg, replayed) {
    const latency = Math.max(0, Date.now() - msg.ts);
    totals.messages++;
    totals.second++;
    if (!replayed) totals.latencies.push(latency);
    fresh.push({ msg, replayed, latency });
    if (fresh.length < FRESH_MAX) schedulePaint();
    else paint();
  },
  gap(gap) {
    byId("gaps").textContent = ++totals.gaps;
    note(`gap in ${gap.topic ?? "the log"}: ${gap.count ?? "some"} messages missing (${gap.why})`);
  },
  note,
});

setInterval(() => {
  byId("rate").textContent = totals.second.toLocaleString();
  totals.second = 0;
  if (totals.latencies.length) {
    totals.latencies.sort((a, b) => a - b);
    byId("latency").textContent = `${totals.latencies[totals.latencies.length >> 1]} ms`;
    totals.latencies = [];
  }
}, 1000);

byId("subscribe").addEventListener("submit", (event) => {
  event.preventDefault();
  cards.clear();
  fresh = [];
  totals.messages = 0;
  for (const id of ["cards", "events"]) byId(id).replaceChildren();
  schedulePaint();
  subscription.start(byId("filter").value.trim(), event.submitter?.value || "live");
});

byId("publish").addEventListener("submit", (event) => {
  event.preventDefault();
  const output = byId("published");
  output.textContent = "…";
  subscription.publish(byId("topic").value.trim(), byId("payload").value,
    (ok) => { output.textContent = `durable at ${ok.pos}`; output.className = "good"; },
    (error) => { output.textContent = `${error.code} ${error.detail ?? ""}`; output.className = "bad"; });
});

for (const [what, line] of [
  ["publish by HTTP", `curl -d '{"c":21.5}' http://127.0.0.1:8081/v1/publish/home/kitchen`],
  ["store it once, however often it is sent", `curl -H 'Idempotency-Key: reading-17' -d '{"c":21.5}' http://127.0.0.1:8081/v1/publish/home/kitchen`],
  ["publish by MQTT", `mosquitto_pub -q 1 -t home/kitchen -m '{"c":22}'`],
  ["subscribe by MQTT", `mosquitto_sub -v -t 'home/#'`],
  ["kill the node; this page resumes", `kill -9 "$(cat tidegate-data/pid)"`],
]) {
  const copy = element("button", { type: "button", textContent: "copy", ariaLabel: `copy: ${what}` });
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(line);
      copy.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(copy.previousElementSibling);
      copy.textContent = "selected";
    }
    setTimeout(() => { copy.textContent = "copy"; }, 1500);
  });
  byId("commands").append(element("li", {}, element("span", { textContent: what }), element("code", { textContent: line }), copy));
}

addEventListener("online", () => subscription.hurry());
document.addEventListener("visibilitychange", () => { if (!document.hidden) subscription.hurry(); });
subscription.start(byId("filter").value, "live");
