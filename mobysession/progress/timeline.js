
"use strict";
// Texts of the build reach the page through textContent and title only; see page.py.
(() => {
  const recorded = JSON.parse(document.getElementById("recorded").textContent);
  const root = document.getElementById("timeline");
  const span = Math.max(recorded.duration, 0.001);

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function seconds(value) {
    if (value >= 60) return `${Math.floor(value / 60)}m ${(value % 60).toFixed(0).padStart(2, "0")}s`;
    if (value >= 0.0995) return `${value.toFixed(1)}s`;
    if (value < 0.00005) return "0s";
    return `${(value * 1000).toFixed(value >= 0.01 ? 0 : 1)}ms`;
  }

  function bytes(count) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    while (count >= 1000 && unit < units.length - 1) { count /= 1000; unit += 1; }
    return unit ? `${count.toFixed(2)} ${units[unit]}` : `${count} B`;
  }

  const took = (runs) => {
    let total = 0, until = -Infinity;
    for (const [start, end] of runs) {
      total += Math.max(0, end - Math.max(start, until));
      until = Math.max(until, end);
    }
    return total;
  };

  // -- head ------------------------------------------------------------------------------------------------------

  root.replaceChildren(make("h1", "", recorded.title));
  const summary = make("div", `summary outcome-${recorded.outcome}`);
  const say = (number, word) => {
    const item = make("span");
    item.append(make("b", "", number), ` ${word}`);
    summary.append(item);
  };
  const counted = (state) => recorded.steps.filter((step) => step.state === state).length;
  const critical = recorded.steps.filter((step) => step.critical);
  say(recorded.outcome, `after ${seconds(recorded.duration)}`);
  say(recorded.steps.length, "steps");
  say(counted("cached"), "from the cache");
  if (counted("failed")) say(counted("failed"), "failed");
  say(critical.length, `on the critical path (${seconds(critical.reduce((sum, step) => sum + took(step.runs), 0))})`);
  say(recorded.calls.length, "callbacks");
  say(new Date(recorded.begun * 1000).toISOString().replace("T", " ").slice(0, 19), "UTC");
  root.append(summary);
  if (recorded.error) root.append(make("div", "error", recorded.error));

  const legend = make("div", "legend");
  for (const [state, words] of [["done", "done"], ["cached", "from the cache"], ["failed", "failed"],
    ["cancelled", "cancelled"], ["running", "not ended"], ["part", "transfer"], ["call", "callback"],
    ["way", "critical path (outlined)"]]) {
    const item = make("span");
    item.append(make("span", `swatch ${state}`), words);
    legend.append(item);
  }

  // -- chart -----------------------------------------------------------------------------------------------------

  const chart = make("div", "chart");
  chart.setAttribute("role", "group");
  chart.setAttribute("aria-label", "steps over time");
  const rows = [];
  const heads = [];

  function track(element, start, end) {
    element.style.left = `${(100 * start) / span}%`;
    element.style.width = `${(100 * Math.max(0, end - start)) / span}%`;
    return element;
  }

  function row(kind, label, hint, bars, time, search, details) {
    const element = make("div", "row");
    element.tabIndex = 0;
    element.setAttribute("role", "button");
    element.setAttribute("aria-expanded", "false");
    const name = make("span", "name", label);
    name.title = hint;
    const line = make("span", "track");
    line.append(...bars);
    const end = Math.max(...time.map((run) => run[1]));
    const after = make("span", "took", seconds(took(time)));
    // Where there is no room behind a bar, its time stands before it.
    const late = end > span * 0.9;
    after.style.left = `${(100 * (late ? Math.min(...time.map((run) => run[0])) : end)) / span}%`;
    if (late) after.classList.add("before");
    line.append(after);
    element.append(name, line);
    let shown = null;
    const toggle = () => {
      if (shown) { shown.remove(); shown = null; } else { shown = details(); element.after(shown); }
      element.setAttribute("aria-expanded", String(shown !== null));
    };
    element.addEventListener("click", toggle);
    element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); }
    });
    rows.push({ element, text: search.toLowerCase(), kind, hide: (hidden) => {
      element.hidden = hidden;
      if (shown) shown.hidden = hidden;
    } });
    return element;
  }

  function table(lines) {
    const element = make("table");
    for (const cells of lines) {
      const line = make("tr");
      line.append(...cells.map((cell) => make("td", "", cell)));
      element.append(line);
    }
    return element;
  }

  function stepDetails(step) {
    const box = make("div", "details");
    box.append(make("p", "", `#${step.number} ${step.name}`));
    box.append(make("p", "", `${step.state}, ${seconds(took(step.runs))}, begun after ${seconds(step.runs[0][0])}` +
      (step.critical ? ", on the critical path" : "")));
    if (step.error) box.append(make("div", "error", step.error));
    for (const warning of step.warnings) box.append(make("p", "", `warning: ${warning}`));
    if (step.parts.length) {
      box.append(table(step.parts.map((part) => [
        part.name, part.total ? `${bytes(part.current)} of ${bytes(part.total)}` : part.current ? bytes(part.current) : "",
        seconds(part.end - part.start)])));
    }
    if (!step.log.length) { box.append(make("p", "", "It wrote nothing.")); return box; }
    const log = make("pre");
    log.tabIndex = 0;
    if (step.omitted) log.append(make("i", "", `(${step.omitted} earlier lines were not kept)\n`));
    for (const [time, isError, text] of step.log) {
      log.append(make("i", "", `${(time - step.runs[0][0]).toFixed(3).padStart(8)}  `));
      log.append(isError ? make("span", "stderr", `${text}\n`) : `${text}\n`);
    }
    box.append(log);
    return box;
  }

  function stepRow(step) {
    const bars = step.runs.map(([start, end]) =>
      track(make("span", `bar ${step.state}${step.critical ? " critical" : ""}`), start, end));
    const parts = step.parts.map((part) => track(make("span", "bar part"), part.start, part.end));
    const search = [step.name, step.state, step.error, ...step.log.map((line) => line[2])].join("\n");
    return row(step.critical ? "critical" : "step", step.name, step.name, [...bars, ...parts], step.runs, search,
      () => stepDetails(step));
  }

  function callDetails(call) {
    const box = make("div", "details");
    box.append(make("p", "", call.method));
    box.append(table([["answer", call.code || "none"], ["sent", bytes(call.sent)], ["received", bytes(call.received)],
      ["took", seconds(call.end - call.start)]]));
    if (call.message) box.append(make("p", "", call.message));
    return box;
  }

  function callRow(call) {
    const label = call.subject ? `${call.kind} ${call.subject}` : call.kind;
    const failed = call.code && call.code !== "OK";
    const bar = track(make("span", `bar ${failed ? "failed" : "call"}`), call.start, call.end);
    return row("call", label, call.method, [bar], [[call.start, call.end]], `${label}\n${call.method}`,
      () => callDetails(call));
  }

  function stage(name, elements) {
    const head = make("div", "stage");
    const label = make("span", "name", `${name} (${elements.length})`);
    label.title = name;
    head.append(label, make("span", "track"));
    heads.push([head, elements]);
    chart.append(head, ...elements);
  }

  function axis() {
    const element = make("div", "axis");
    const line = make("span", "track");
    const wanted = span / (8 * zoom);
    const power = 10 ** Math.floor(Math.log10(wanted));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= wanted);
    for (let at = 0; at <= span && line.childElementCount < 2000; at += step) {
      const tick = make("span", "tick", seconds(at));
      tick.style.left = `${(100 * at) / span}%`;
      line.append(tick);
    }
    element.append(make("span", "name", "time"), line);
    return element;
  }

  let zoom = 1;
  let scale = axis();
  chart.append(scale);
  const stages = new Map();
  for (const step of recorded.steps) {
    if (!stages.has(step.stage)) stages.set(step.stage, []);
    stages.get(step.stage).push(stepRow(step));
  }
  for (const [name, elements] of stages) stage(name, elements);
  if (recorded.calls.length) stage("callbacks of the engine", recorded.calls.map(callRow));

  // -- tools -----------------------------------------------------------------------------------------------------

  function setZoom(value, around) {
    const names = scale.firstChild.offsetWidth;
    const point = around === undefined ? (chart.clientWidth - names) / 2 : Math.max(0, around - names);
    const next = Math.min(200, Math.max(1, value));
    const left = ((chart.scrollLeft + point) * next) / zoom - point;
    zoom = next;
    document.documentElement.style.setProperty("--zoom", String(zoom));
    const fresh = axis();
    scale.replaceWith(fresh);
    scale = fresh;
    chart.scrollLeft = left;
  }

  function button(label, hint, action) {
    const element = make("button", "", label);
    element.type = "button";
    element.title = hint;
    element.addEventListener("click", action);
    return element;
  }

  const search = make("input");
  search.type = "search";
  search.placeholder = "Find in names and logs";
  search.setAttribute("aria-label", search.placeholder);
  const only = make("input");
  only.type = "checkbox";
  const onlyLabel = make("label");
  onlyLabel.append(only, " critical path only");
  function sift() {
    const text = search.value.toLowerCase();
    for (const each of rows) each.hide(!each.text.includes(text) || (only.checked && each.kind !== "critical"));
    for (const [head, elements] of heads) head.hidden = elements.every((element) => element.hidden);
  }
  search.addEventListener("input", sift);
  only.addEventListener("change", sift);
  const tools = make("div", "tools");
  tools.append(button("+", "more detail", () => setZoom(zoom * 1.5)), button("\u2212", "less detail", () =>
    setZoom(zoom / 1.5)), button("all", "the whole build", () => setZoom(1)), search, onlyLabel);
  chart.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    setZoom(zoom * Math.exp(-event.deltaY / 300), event.clientX - chart.getBoundingClientRect().left);
  }, { passive: false });
  root.append(legend, tools, chart);
})();
