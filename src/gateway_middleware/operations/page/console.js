"use strict";
(() => {
  const EVERY_MS = 2000, PATIENCE_MS = 8000, WINDOW_S = 900, SVG = "http://www.w3.org/2000/svg";
  const STATES = {
    closed: ["closed", "good", "✓"], half_open: ["half-open", "warn", "◐"], open: ["open", "bad", "✕"],
    forced_open: ["forced open", "bad", "⚑"], forced_closed: ["forced closed", "warn", "⚑"],
  };
  const COMMANDS = {
    "reset": ["Reset", "forgets failures, forces and cooldowns: calls go there again at once."],
    "force-open": ["Force open", "sends no call there until the time is over. Routes go on to their next deployment; calls without one are refused."],
    "force-close": ["Force closed", "lets every call through, whatever fails, until the time is over."],
    "auto": ["Automatic", "ends the force: the breaker decides by itself again."],
  };
  const at = (id) => document.getElementById(id);
  // In memory and nowhere else; gone with the page.
  let token = null, timer = 0, asking = null, paused = false, seen = null, seenAt = 0, fault = null, action = null;

  // Elements. Texts are always text nodes: nothing that is shown can become markup.

  function make(tag, attributes, ...children) {
    const isDrawn = ["svg", "path", "rect", "line", "title"].includes(tag);
    const element = isDrawn ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : String(value));
    }
    for (const child of children.flat(Infinity)) {
      if (child !== null && child !== undefined && child !== false) element.append(child instanceof Node ? child : String(child));
    }
    return element;
  }

  // Brings what is shown in line with what was made, in place: focus, selection and scrolling stay.
  function patch(shown, wanted) {
    for (const { name } of [...shown.attributes]) if (!wanted.hasAttribute(name)) shown.removeAttribute(name);
    for (const { name, value } of wanted.attributes) if (shown.getAttribute(name) !== value) shown.setAttribute(name, value);
    patchChildren(shown, [...wanted.childNodes]);
  }

  function patchChildren(parent, wanted) {
    const keyed = new Map([...parent.children].filter((e) => e.dataset && e.dataset.key).map((e) => [e.dataset.key, e]));
    wanted.forEach((node, index) => {
      const current = parent.childNodes[index];
      const key = node.dataset && node.dataset.key;
      const match = key ? keyed.get(key) : current && !(current.dataset && current.dataset.key) ? current : null;
      if (!match || match.nodeName !== node.nodeName || match.nodeType !== node.nodeType) {
        parent.insertBefore(node, current || null);
        return;
      }
      if (match !== current) parent.insertBefore(match, current || null);
      if (node.nodeType === Node.TEXT_NODE) { if (match.data !== node.data) match.data = node.data; } else patch(match, node);
    });
    while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
  }

  const show = (id, ...children) => patchChildren(at(id), [...make("div", null, ...children).childNodes]);

  // Words and numbers.

  const count = (n) => new Intl.NumberFormat("en", { maximumFractionDigits: 1, notation: n >= 1e5 ? "compact" : "standard" }).format(n);
  const dollars = (n) => "$" + new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: Math.abs(n) < 1 ? 4 : 2 }).format(n);
  const percent = (n) => n === null ? "–" : (100 * n).toFixed(n > 0 && n < 0.1 ? 1 : 0) + " %";
  const millis = (n) => n === null || n === undefined ? "–" : n < 1000 ? Math.round(n) + " ms" : (n / 1000).toFixed(n < 10000 ? 2 : 1) + " s";
  const amount = (row, n) => row.unit === "spend" ? dollars(n) : count(Math.max(0, n));
  const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : /(s|ss)$/.test(word) ? "es" : "s"}`;
  const spoken = (name) => String(name).replaceAll("_", " ");

  // May break after a slash or a colon.
  const breakable = (key) => key.split(/(?<=[/:])/).flatMap((part, i) => i ? [make("wbr"), part] : [part]);
  const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1);

  function span(seconds) {
    const s = Math.max(0, Math.round(seconds));
    if (s < 60) return s + "\u00a0s";
    if (s < 3600) return Math.floor(s / 60) + "\u00a0min" + (s < 600 && s % 60 ? "\u00a0" + s % 60 + "\u00a0s" : "");
    if (s < 86400) return Math.floor(s / 3600) + "\u00a0h\u00a0" + Math.floor(s % 3600 / 60) + "\u00a0min";
    return Math.floor(s / 86400) + "\u00a0d\u00a0" + Math.floor(s % 86400 / 3600) + "\u00a0h";
  }

  const now = () => seen ? Date.parse(seen.generated_at) / 1000 : 0;
  const moment = (seconds) => make("time", { datetime: new Date(1000 * seconds).toISOString(), title: new Date(1000 * seconds).toLocaleString() }, span(now() - seconds), " ago");

  function badge(state) {
    const [word, tone, sign] = STATES[state] || [spoken(state), "", "•"];
    return make("span", { class: `badge ${tone}` }, make("span", { "aria-hidden": "true" }, sign), word);
  }

  // Pictures. Drawn in a box of 300 x 44; x is time over the last quarter of an hour.

  const x = (sample) => 300 * (1 - (now() - sample.at) / WINDOW_S);
  const within = (samples) => samples.filter((sample) => x(sample) >= 0 && x(sample) <= 301);

  function latencies(samples) {
    const known = within(samples).filter((sample) => sample.p95_ms !== null);
    const top = Math.max(...known.map((sample) => sample.p95_ms), 1);
    const points = known.map((sample) => [x(sample), 42 - 38 * sample.p95_ms / top]);
    // Runs of samples without a gap: where nobody called there is no line.
    const runs = [];
    points.forEach((point, i) => i && point[0] - points[i - 1][0] < 7 ? runs.at(-1).push(point) : runs.push([point]));
    const along = (run) => run.map(([px, py]) => `L${px.toFixed(1)} ${py.toFixed(1)}`).join("").slice(1);
    const line = runs.map((run) => "M" + along(run) + "h1.5").join("");
    const area = runs.map((run) => `M${run[0][0].toFixed(1)} 43L${along(run)}L${run.at(-1)[0].toFixed(1)} 43Z`).join("");
    return picture(known.length ? `95th percentile of latency over 15 minutes, highest ${millis(top)}` : "No traffic in 15 minutes",
      make("path", { class: "area", d: area }), make("path", { class: "line", d: line }));
  }

  function errors(samples) {
    const shown = within(samples), top = Math.max(...shown.map((sample) => sample.attempts), 1);
    const bars = shown.map((sample) => {
      const all = 40 * sample.attempts / top, bad = sample.attempts ? Math.max(sample.errors ? 1.5 : 0, all * sample.errors / sample.attempts) : 0;
      const left = (x(sample) - 3).toFixed(1);
      return [make("rect", { class: "calls", x: left, y: (43 - all).toFixed(1), width: 2.6, height: all.toFixed(1) }),
        make("rect", { class: "bar", x: left, y: (43 - bad).toFixed(1), width: 2.6, height: bad.toFixed(1) })];
    });
    const worst = Math.max(...shown.map((sample) => sample.attempts ? sample.errors / sample.attempts : 0), 0);
    return picture(`Attempts and errors over 15 minutes, highest share of errors ${percent(worst)}`, bars);
  }

  const picture = (words, ...children) => make("svg", { class: "spark", viewBox: "0 0 300 44", preserveAspectRatio: "none", role: "img", "aria-label": words },
    make("title", null, words), make("line", { class: "base", x1: 0, y1: 43.5, x2: 300, y2: 43.5 }), ...children);

  // Sections.

  function facts(s) {
    const [word, tone, sign] = s.status === "ok" ? ["well", "good", "✓"] : [plural(s.problems.length, "problem"), "bad", "!"];
    show("standing", make("span", { class: `badge ${tone}` }, make("span", { "aria-hidden": "true" }, sign), word));
    document.title = (s.status === "ok" ? "" : `(${s.problems.length}) `) + "Model Gateway";
    const same = s.config === "same";
    show("facts", [["Version", s.version], ["Configuration", s.config_hash]].map(([name, value]) =>
      make("div", null, make("dt", null, name), make("dd", { class: "mono" }, value))),
      !same && make("div", null, make("dd", null, make("span", { class: "badge warn" }, "configurations differ"))));
  }

  function alerts(s) {
    const silent = s.processes.filter((p) => !p.is_answering);
    show("alerts",
      s.problems.map((p) => make("div", { class: "alert", "data-key": `${p.kind}/${p.name}` }, make("div", null, make("b", null, spoken(p.kind), " · ", p.name), ": ", p.message,
        s.processes.length > 1 && make("span", { class: "muted" }, ` (${p.processes} of ${s.processes.length} processes)`)))),
      silent.length > 0 && make("div", { class: "alert warn", "data-key": "silent" }, make("div", null, make("b", null, plural(silent.length, "process"), " silent: "),
        "what they know is not in these figures. ", silent.map((p) => `${p.host}/${p.pid}`).join(", "))),
      s.stores.includes("degraded") && make("div", { class: "alert warn", "data-key": "store" }, make("div", null, make("b", null, "Redis is out: "), "each replica enforces its share of every limit.")));
  }

  function tile(name, value, note, tone) {
    return make("div", { class: `tile ${tone || ""}`, "data-key": name }, make("div", { class: "name" }, name), make("div", { class: "value" }, value), make("div", { class: "note" }, note));
  }

  function tiles(s) {
    const minute = s.calls.last_minute, m = s.metering, spend = s.spend_today;
    const answering = s.processes.filter((p) => p.is_answering).length;
    show("tiles",
      tile("In flight", count(s.calls.in_flight), "calls"),
      tile("Queue", count(s.calls.waiting), "waiting", s.calls.waiting ? "warn" : ""),
      tile("Attempts", count(minute.attempts), "last minute"),
      tile("Errors", percent(minute.error_rate), `${count(minute.errors)} last minute`, minute.error_rate > 0.05 ? "bad" : minute.errors ? "warn" : ""),
      tile("Latency p95", millis(minute.latency_ms.p95), `p50 ${millis(minute.latency_ms.p50)}`),
      spend ? tile("Spend today", dollars(Number(spend.usd)), spend.unpriced ? `${plural(spend.unpriced, "event")} unpriced` : plural(spend.events, "event"), spend.is_complete ? "" : "warn") : tile("Spend today", "–", "not metered"),
      m ? tile("Metering", m.state, m.delivery.standing === "off" ? `${count(m.backlog)} kept` : `${count(m.backlog)} to deliver`, m.state === "ok" ? "" : "bad") : tile("Metering", "off", ""),
      tile("Processes", `${answering}/${s.processes.length}`, s.config === "same" ? "same config" : "configs differ", answering < s.processes.length || s.config !== "same" ? "warn" : ""));
  }

  function button(key, command, words) {
    return make("button", { type: "button", class: "quiet", "data-breaker": key, "data-command": command, "aria-label": `${words || COMMANDS[command][0]}: ${key}` }, words || COMMANDS[command][0]);
  }

  function menu(key, state) {
    const isForced = state.startsWith("forced");
    return make("div", { class: "menu" }, isForced && button(key, "auto"), !isForced && button(key, "reset"),
      state !== "forced_open" && button(key, "force-open"));
  }

  function breaker(key, b, minute) {
    const isClosed = b.state === "closed", spread = Object.entries(b.processes);
    const why = Object.entries(b.why).map(([name, n]) => `${n} × ${spoken(name)}`).join(", ");
    const told = [
      minute && minute.attempts > 0 && `${count(minute.attempts)}/min, ${percent(minute.error_rate)} errors, p95 ${millis(minute.latency_ms.p95)}`,
      !isClosed && b.reason, !isClosed && why, b.next_probe_in !== null && `next probe in ${span(b.next_probe_in)}`,
      b.forced_until && `until ${new Date(b.forced_until).toLocaleTimeString()}`, b.refused > 0 && `${plural(b.refused, "call")} ${b.mode === "shadow" ? "would have been " : ""}refused`,
      spread.length > 1 && spread.map(([state, n]) => `${(STATES[state] || [state])[0]} in ${n}`).join(", "),
    ].filter(Boolean).join(" · ");
    return make("li", { "data-key": key }, make("span", { class: "key mono" }, breakable(key)), badge(b.state), menu(key, b.state),
      told && make("div", { class: "tell" }, told));
  }

  function provider(p) {
    const [, tone] = STATES[p.state] || ["", ""], minute = p.last_minute, isWell = p.state === "closed";
    const why = Object.entries(p.why).map(([name, n]) => `${n} × ${spoken(name)}`).join(", ");
    const isForced = [p, ...Object.values(p.circuit_breakers)].some((b) => b.state.startsWith("forced"));
    const card = tone === "good" ? (p.cooldowns.length ? "warn" : "") : tone;
    const lone = Object.keys(p.deployments).filter((key) => !(key in p.circuit_breakers) && p.deployments[key].attempts);
    return make("article", { class: `card ${card}`, "data-key": p.name },
      make("div", { class: "head" }, make("h3", null, p.name), make("span", { class: "kind" }, spoken(p.kind), p.mode === "on" ? "" : ` · breakers ${p.mode}`), badge(p.state)),
      !isWell && make("p", { class: "cause" }, sentence(p.reason || "by an operator; nobody has called it yet"), p.since && ` · since ${span(now() - Date.parse(p.since) / 1000)}`, p.next_probe_in !== null && ` · next probe in ${span(p.next_probe_in)}`),
      why && make("p", { class: "cause muted" }, "Last failures: ", why),
      p.cooldowns.map((c) => make("p", { class: "cause" }, make("span", { class: "badge warn" }, "cooling down"), " ", make("span", { class: "mono" }, (c.deployment || "everything") + (c.key ? ` with ${c.key}` : "")), ` for ${span(c.seconds)}`, c.class && ` · ${spoken(c.class)}`)),
      make("div", { class: "charts" },
        make("div", { class: "chart" }, make("div", { class: "cap" }, "p95 latency", make("b", null, millis(minute.latency_ms.p95))), latencies(p.samples)),
        make("div", { class: "chart" }, make("div", { class: "cap" }, "Errors", make("b", null, minute.attempts ? `${percent(minute.error_rate)} of ${count(minute.attempts)}` : "–")), errors(p.samples))),
      make("ul", { class: "rows" }, Object.entries(p.circuit_breakers).sort(([one], [other]) => one.startsWith("endpoint:") - other.startsWith("endpoint:")).map(([key, b]) => breaker(key, b, p.deployments[key])),
        lone.map((key) => make("li", { "data-key": key }, make("span", { class: "key mono" }, breakable(key)), make("span", { class: "muted" }, `${count(p.deployments[key].attempts)}/min`)))),
      make("div", { class: "row" }, button(p.name, "reset", "Reset all"), isForced && button(p.name, "auto"), p.state !== "forced_open" && button(p.name, "force-open"),
        p.state !== "forced_closed" && button(p.name, "force-close")));
  }

  function limit(row) {
    const share = Math.min(1, row.limit ? row.used / row.limit : 0), tone = row.fullest >= 0.95 ? "bad" : row.fullest >= 0.8 ? "warn" : "";
    const words = `${amount(row, row.used)} of ${amount(row, row.limit)}`;
    return make("div", { class: "limit", "data-key": `${row.scope}/${row.name}` },
      make("div", { class: "cap" }, make("span", null, row.unit === "concurrency" ? "at a time" : `${row.unit} a ${row.period}`, row.scope === "tenant" ? "" : ` · ${row.scope}`, row.is_shadow && " · shadow", row.fullest >= 0.95 && share < 0.95 && " · share full"), make("b", null, words)),
      make("svg", { class: `meter ${tone}`, viewBox: "0 0 100 5", preserveAspectRatio: "none", role: "img", "aria-label": `${percent(share)} used` },
        make("rect", { class: "all", width: 100, height: 5, rx: 1 }), make("rect", { class: "used", width: (100 * share).toFixed(1), height: 5, rx: 1 })));
  }

  function tenants(s) {
    if (!s.tenants.length) { show("tenants", make("p", { class: "empty" }, "No tenant has called yet.")); return; }
    const costs = s.spend_today ? s.spend_today.tenants : {};
    show("tenants", make("div", { class: "scroll" }, make("table", { class: "stack" },
      make("thead", null, make("tr", null, ["Tenant", "Limits"].map((name) => make("th", { scope: "col" }, name)), ["Refused", "Spend today"].map((name) => make("th", { scope: "col", class: "num" }, name)))),
      make("tbody", null, s.tenants.map((t) => make("tr", { "data-key": t.name }, make("td", { class: "name" }, t.name),
        make("td", null, t.limits.length ? make("div", { class: "limits" }, t.limits.map(limit)) : make("span", { class: "muted" }, "no limits")),
        make("td", { class: "num", "data-label": "Refused" }, count(t.refused)), make("td", { class: "num", "data-label": "Spend today" }, t.name in costs ? dollars(Number(costs[t.name])) : "–")))))),
      s.other_tenants > 0 && make("p", { class: "muted" }, `And ${plural(s.other_tenants, "other")}.`));
  }

  function listed(id, entries, words, row) {
    show(id, entries.length ? make("ol", { class: "log", tabindex: "0" }, entries.map(row)) : make("p", { class: "empty" }, words));
  }

  function errorRow(e) {
    return make("li", { "data-key": `${e.at}/${e.request_id}/${e.attempt}` }, make("div", { class: "top" }, make("span", { class: "badge bad" }, spoken(e.error_class), e.status ? ` ${e.status}` : ""), make("span", { class: "mono" }, e.deployment), moment(e.at)),
      make("div", { class: "text" }, e.message), make("div", { class: "text" }, [e.tenant && `tenant ${e.tenant}`, `attempt ${e.attempt}`, `request ${e.request_id}`, e.process].filter(Boolean).join(" · ")));
  }

  function eventRow(e) {
    const what = e.kind === "cooldown" ? make("span", { class: "badge warn" }, "cooldown") : [badge(e.before), make("span", { "aria-label": "to" }, "→"), badge(e.after)];
    return make("li", { "data-key": `${e.at}/${e.key}/${e.after}/${e.process}` }, make("div", { class: "top" }, what, make("span", { class: "mono" }, e.key), moment(e.at)),
      make("div", { class: "text" }, [spoken(e.reason), e.seconds && `for ${span(e.seconds)}`, e.process].filter(Boolean).join(" · ")));
  }

  function processes(s) {
    const columns = [["Process"], ["Standing"], ["Configuration"], ["Version"], ["Up", 1], ["In flight", 1], ["Waiting", 1], ["Loop lag", 1]];
    show("processes", make("div", { class: "scroll" }, make("table", { class: "stack" },
      make("thead", null, make("tr", null, columns.map(([name, isNumber]) => make("th", { scope: "col", class: isNumber ? "num" : "" }, name)))),
      make("tbody", null, s.processes.map((p) => make("tr", { "data-key": `${p.host}/${p.pid}` },
        make("td", { class: "name" }, `${p.host}/${p.pid}`, `${p.host}/${p.pid}` === s.asked && make("span", { class: "muted" }, " (answers here)")),
        make("td", null, p.is_answering ? make("span", { class: `badge ${p.phase === "ok" ? "good" : "warn"}` }, p.phase === "ok" ? "serving" : p.phase) : make("span", { class: "badge bad" }, `silent for ${span(p.silent_seconds)}`)),
        make("td", { class: "mono", "data-label": "Configuration" }, p.config_hash, p.standing !== "same" && [" ", make("span", { class: "badge warn" }, p.standing)]),
        make("td", { class: "mono", "data-label": "Version" }, p.version),
        [["Up", span(now() - Date.parse(p.started) / 1000)], ["In flight", p.is_answering ? count(p.calls_in_flight) : "–"], ["Waiting", p.is_answering ? count(p.waiting) : "–"], ["Loop lag", p.is_answering ? millis(1000 * p.loop_lag_seconds) : "–"]].map(([name, value]) =>
          make("td", { class: "num", "data-label": name }, value))))))));
  }

  function render() {
    if (!seen) return;
    facts(seen); alerts(seen); tiles(seen); tenants(seen); processes(seen);
    show("providers", seen.providers.map(provider));
    listed("errors", seen.errors, "No provider has failed since the processes began.", errorRow);
    listed("events", seen.events, "No breaker has moved since the processes began.", eventRow);
  }

  function age() {
    const seconds = (Date.now() - seenAt) / 1000;
    const isOld = seen !== null && (fault !== null || (!paused && seconds > 3 * EVERY_MS / 1000));
    at("board").classList.toggle("stale", isOld);
    at("age").textContent = seen === null ? "" : paused ? `paused, ${span(seconds)} old` : isOld ? `no answer for ${span(seconds)}` : "live";
    at("age").classList.toggle("fault", isOld);
  }

  // Asking. Paths are relative: the page works below whatever prefix it is mounted at.

  async function ask(path, options) {
    const answer = await fetch(path, { ...options, headers: { authorization: "Bearer " + token }, cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.timeout(PATIENCE_MS) });
    let document_ = null;
    try { document_ = await answer.json(); } catch { /* no JSON: the status says enough */ }
    if (answer.ok) return document_;
    const error = new Error(document_ && document_.error ? document_.error.message : `The gateway answers ${answer.status}.`);
    error.status = answer.status;
    throw error;
  }

  async function refresh() {
    clearTimeout(timer);
    const mine = asking = {};
    try {
      const document_ = await ask("v1/admin/status");
      if (asking !== mine) return;
      seen = document_; seenAt = Date.now(); fault = null;
      at("unlock").hidden = true; at("board").hidden = at("controls").hidden = false;
      render();
    } catch (error) {
      if (asking !== mine) return;
      fault = error;
      if (seen === null || error.status === 401 || error.status === 403) lock(error.name === "TimeoutError" ? "The gateway does not answer." : error.message);
    }
    age();
    if (token !== null && !paused) timer = setTimeout(refresh, EVERY_MS);
  }

  function lock(message) {
    clearTimeout(timer);
    token = seen = asking = null; paused = false;
    at("pause").textContent = "Pause";
    at("confirm").close();
    for (const id of ["standing", "facts", "alerts", "tiles", "providers", "tenants", "errors", "events", "processes", "done"]) show(id);
    document.title = "Model Gateway";
    at("board").hidden = at("controls").hidden = true;
    at("unlock").hidden = false;
    at("unlock-fault").textContent = message || "";
    at("token").value = "";
    at("token").focus();
  }

  function propose(key, command) {
    action = { key, command };
    const [word, effect] = COMMANDS[command];
    at("confirm-title").textContent = `${word}: ${key}`;
    at("confirm-effect").textContent = `This ${effect}`;
    at("confirm-time").hidden = !command.startsWith("force");
    at("confirm-fault").textContent = "";
    at("reason").value = "";
    at("do").textContent = word;
    at("do").className = command === "force-open" ? "danger" : "primary";
    at("confirm").showModal();
    at("reason").focus();
  }

  async function carryOut() {
    const { key, command } = action, body = { reason: at("reason").value.trim() };
    if (!body.reason) { at("confirm-fault").textContent = "Say why: it stands in the audit log."; at("reason").focus(); return; }
    if (command.startsWith("force")) body.ttl = Number(at("ttl").value);
    at("do").disabled = true;
    try {
      const path = key.split("/").map(encodeURIComponent).join("/");
      const answer = await ask(`v1/admin/circuit-breakers/${path}/${command}`, { method: "POST", body: JSON.stringify(body) });
      at("confirm").close();
      const reach = answer.is_shared ? "Every process follows within a second." : answer.is_shared === false ? "The other processes could not be told yet." : "";
      say(`${COMMANDS[command][0]}: ${key}. ${reach}`);
      refresh();
    } catch (error) {
      at("confirm-fault").textContent = error.message;
    } finally { at("do").disabled = false; }
  }

  function say(words) {
    show("done", make("p", null, words));
    setTimeout(() => show("done"), 6000);
  }

  at("unlock").addEventListener("submit", (event) => {
    event.preventDefault();
    token = at("token").value.trim();
    at("unlock-fault").textContent = "";
    if (/^[\x21-\x7e]+$/.test(token)) refresh(); else lock("A token has only visible ASCII characters.");
  });
  at("confirm-form").addEventListener("submit", (event) => { event.preventDefault(); carryOut(); });
  at("cancel").addEventListener("click", () => at("confirm").close());
  at("lock").addEventListener("click", () => lock());
  at("pause").addEventListener("click", () => {
    paused = !paused;
    at("pause").textContent = paused ? "Go on" : "Pause";
    if (paused) clearTimeout(timer); else refresh();
    age();
  });
  document.addEventListener("click", (event) => {
    const pressed = event.target.closest("button[data-command]");
    if (pressed) propose(pressed.dataset.breaker, pressed.dataset.command);
  });
  document.addEventListener("visibilitychange", () => {
    if (token === null || paused) return;
    if (document.hidden) clearTimeout(timer); else refresh();
  });
  setInterval(age, 1000);
})();
