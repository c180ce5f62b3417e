"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const viewer = byId("viewer"), problems = byId("problem-table");
  const packed = {}, waiting = {};
  let shown = null, cameFrom = null;

  function make(tag, text, kind = "") {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (kind) node.className = kind;
    return node;
  }

  // The table of problems.

  function sortBy(head) {
    const body = problems.tBodies[0], value = (row) => row.cells[head.cellIndex].dataset.value;
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const cell of head.parentNode.cells) cell.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].sort((a, b) => {
      const difference = value(a) - value(b);
      return isNaN(difference) ? value(a).localeCompare(value(b), undefined, { numeric: true }) : difference;
    });
    body.append(...(down ? rows.reverse() : rows));
  }

  // A page of one arm has no right side.
  const sides = ["left", "right"].filter((side) => byId("arm-" + side));
  const chosen = (side) => +byId("arm-" + side).value;

  function filter() {
    const words = byId("problem-words").value.toLowerCase().split(/\s+/), kind = byId("problem-kind").value;
    const rows = [...problems.tBodies[0].rows];
    for (const row of rows) {
      const text = row.cells[0].textContent.toLowerCase(), solved = row.dataset.solved;
      const quarter = sides.map((side) => (solved[chosen(side)] === "1" ? side[0] : "")).join("");
      row.hidden = !(words.every((word) => text.includes(word)) && (kind === "all" || kind === quarter));
    }
    byId("problem-count").textContent = rows.filter((row) => !row.hidden).length + " of " + rows.length + " problems";
  }

  // Samples: a file a problem, which calls rlvrSamples with deflated JSON.

  window.rlvrSamples = (place, text) => waiting[place](text);

  async function load(place) {
    packed[place] ??= new Promise((resolve, reject) => {
      const script = make("script");
      script.src = "samples/" + place + ".js";
      waiting[place] = resolve;
      script.onerror = () => {
        delete packed[place];
        reject(new Error(script.getAttribute("src") + " is not beside this page. All samples lie in records/ of the run."));
      };
      document.body.append(script);
    });
    const bytes = Uint8Array.from(atob(await packed[place]), (c) => c.charCodeAt(0));
    if (typeof DecompressionStream === "undefined")
      throw new Error("This browser cannot unpack the samples: Chrome 86, Firefox 113, Safari 16.4 or later can.");
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
  }

  function sample([index, verdict, answer, logp, stop, text]) {
    const part = make("details"), head = make("summary");
    head.append(
      make("span", verdict, ["right", "wrong"].includes(verdict) ? verdict : "neutral"),
      " \u00b7 sample " + index + " \u00b7 " + (answer ? "answer read: " + answer : "no answer read"),
      logp === null ? "" : " \u00b7 log-prob " + logp.toFixed(1).replace("-", "\u2212") + " nats",
      " \u00b7 ended by " + stop,
    );
    part.append(head);
    part.addEventListener("toggle", () => part.append(make("pre", text)), { once: true });
    return part;
  }

  function tally(arm) {
    const part = make("details"), list = make("ul");
    for (const [text, count, right] of arm.answers) {
      const line = make("li", count + " \u00d7 ");
      line.append(make("span", text || "no answer", right ? "right" : "neutral"));
      list.append(line);
    }
    const [answers, samples] = arm.others;
    if (answers) list.append(make("li", samples + " more samples with " + answers + " other answers"));
    part.append(make("summary", "Answers read, over all " + arm.n + " samples"), list);
    return part;
  }

  function column(side, content) {
    const label = byId("arm-" + side).selectedOptions[0].text, arm = content.arms[chosen(side)];
    const kind = byId("sample-kind").value, node = make("div"), list = make("div", "", "list");
    const rows = arm.samples.filter((row) => kind === "all" || (row[1] === "right") === (kind === "right"));
    list.tabIndex = 0;
    list.append(...rows.map(sample), ...(rows.length ? [] : [make("p", "None of this kind was kept.", "note")]));
    const about = arm.c + " of " + arm.n + " samples are right; " + arm.samples.length + " samples are here.";
    node.append(make("h4", label), make("p", about, "note"), ...(arm.answers.length ? [tally(arm)] : []), list);
    return node;
  }

  function pictures(sources) {
    if (!sources.length) return [];
    const part = make("details");
    part.append(make("summary", sources.length > 1 ? "Images of the question" : "Image of the question"));
    for (const [i, source] of sources.entries()) {
      const image = make("img");
      [image.src, image.alt] = [source, "image " + (i + 1) + " of the question"];
      part.append(image);
    }
    return [part];
  }

  async function draw() {
    if (shown === null) return;
    const place = shown, said = viewer.querySelector(".said"), columns = viewer.querySelector(".columns");
    said.textContent = "Loading\u2026";
    let text, parts, seen = [];
    try {
      const content = await load(place);
      [text, parts] = [content.question, sides.map((side) => column(side, content))];
      seen = pictures(content.images);
    } catch (error) {
      [text, parts] = [error.message, []];
    }
    if (shown !== place) return;
    said.textContent = text;
    viewer.querySelector(".pictures").replaceChildren(...seen);
    columns.replaceChildren(...parts);
  }

  function open(place, row) {
    shown = place;
    cameFrom = row.querySelector("a");
    problems.querySelectorAll("tr.open").forEach((other) => other.classList.remove("open"));
    row.classList.add("open");
    viewer.hidden = false;
    viewer.querySelector("h3").textContent = "Samples of " + cameFrom.textContent;
    draw();
    row.scrollIntoView({ block: "nearest" });
    viewer.scrollIntoView({ block: "start" });
    viewer.focus({ preventScroll: true });
  }

  function step(by) {
    const rows = [...problems.tBodies[0].rows].filter((row) => !row.hidden);
    const row = rows[rows.findIndex((row) => row.id === "problem-" + shown) + by];
    if (row) location.hash = row.id;
  }

  function close() {
    viewer.hidden = true;
    shown = null;
    cameFrom.focus();
  }

  // A link to a problem opens its samples.
  function follow() {
    const target = viewer && location.hash && byId(location.hash.slice(1));
    if (target && target.matches("tr[id^=problem-]")) open(+target.id.slice(8), target);
  }

  if (problems) {
    problems.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => sortBy(button.parentNode)));
    for (const id of ["problem-words", "problem-kind", ...sides.map((side) => "arm-" + side)])
      byId(id).addEventListener("input", () => { filter(); draw(); });
    filter();
  }
  if (viewer) {
    byId("sample-kind").addEventListener("input", draw);
    viewer.querySelectorAll("button").forEach((button) => {
      button.addEventListener("click", () => (button.dataset.step ? step(+button.dataset.step) : close()));
    });
  }
  document.querySelectorAll('a[href^="#problem-"]').forEach((link) => {
    link.addEventListener("click", () => { if (location.hash === link.hash) follow(); });
  });
  addEventListener("hashchange", follow);
  follow();
})();
