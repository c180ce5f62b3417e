"use strict";
(function () {
  var packed = {}, waiting = {}, shown = null, cameFrom = null;
  var viewer = document.getElementById("viewer"), problems = document.getElementById("problem-table");

  function make(tag, text, kind) {
    var node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (kind) node.className = kind;
    return node;
  }

  function sortBy(head) {
    var body = head.closest("table").tBodies[0], column = head.cellIndex;
    var down = head.getAttribute("aria-sort") !== "descending";
    head.parentNode.querySelectorAll("th").forEach(function (cell) { cell.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    Array.from(body.rows).sort(function (a, b) {
      var x = a.cells[column].dataset.value, y = b.cells[column].dataset.value, d = x - y;
      if (isNaN(d)) d = x.localeCompare(y, undefined, { numeric: true });
      return down ? -d : d;
    }).forEach(function (row) { body.appendChild(row); });
  }
  document.querySelectorAll("th button").forEach(function (button) {
    button.addEventListener("click", function () { sortBy(button.parentNode); });
  });

  function chosen(side) { return +document.getElementById("arm-" + side).value; }

  function filter() {
    var words = document.getElementById("problem-words").value.toLowerCase().split(/\s+/);
    var kind = document.getElementById("problem-kind").value;
    var a = chosen("left"), b = chosen("right"), left = 0;
    Array.from(problems.tBodies[0].rows).forEach(function (row) {
      var text = row.cells[0].textContent.toLowerCase(), solved = row.dataset.solved;
      var quarter = (solved[a] === "1" ? "l" : "") + (solved[b] === "1" ? "r" : "");
      var keep = words.every(function (word) { return text.indexOf(word) >= 0; }) && (kind === "all" || kind === quarter);
      row.hidden = !keep;
      left += keep;
    });
    document.getElementById("problem-count").textContent = left + " of " + problems.tBodies[0].rows.length + " problems";
  }

  function visible() {
    return Array.from(problems.tBodies[0].rows).filter(function (row) { return !row.hidden; });
  }

  function unpack(text) {
    var bytes = Uint8Array.from(atob(text), function (c) { return c.charCodeAt(0); });
    var stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text().then(JSON.parse);
  }

  function load(place) {
    if (packed[place]) return packed[place];
    return packed[place] = new Promise(function (resolve, reject) {
      var script = document.createElement("script");
      script.src = "samples/" + place + ".js";
      waiting[place] = resolve;
      script.onerror = function () {
        delete packed[place];
        reject(new Error("samples/" + place + ".js is not beside this page. All samples lie in records/ of the run."));
      };
      document.body.appendChild(script);
    }).then(function (text) {
      if (typeof DecompressionStream === "undefined")
        throw new Error("This browser cannot unpack the samples: Chrome 80, Firefox 113, Safari 16.4 or later can.");
      return unpack(text);
    });
  }
  window.rlvrSamples = function (place, text) { waiting[place](text); };

  function sample(row) {
    var part = make("details"), head = make("summary");
    head.appendChild(make("span", row[1], row[1] === "right" ? "right" : row[1] === "wrong" ? "wrong" : "neutral"));
    head.appendChild(document.createTextNode(" \u00b7 sample " + row[0] + " \u00b7 " +
      (row[2] ? "answer read: " + row[2] : "no answer read") +
      (row[3] === null ? "" : " \u00b7 log-prob " + row[3].toFixed(1).replace("-", "\u2212") + " nats") +
      " \u00b7 ended by " + row[4]));
    part.appendChild(head);
    part.addEventListener("toggle", function () {
      if (part.open && part.children.length === 1) part.appendChild(make("pre", row[5]));
    });
    return part;
  }

  function tally(arm) {
    var part = make("details"), list = make("ul");
    part.appendChild(make("summary", "Answers read, over all " + arm.n + " samples"));
    arm.answers.forEach(function (answer) {
      var line = make("li", answer[1] + " \u00d7 ");
      line.appendChild(make("span", answer[0] || "no answer", answer[2] ? "right" : "neutral"));
      list.appendChild(line);
    });
    if (arm.others[0]) list.appendChild(make("li", arm.others[1] + " more samples with " + arm.others[0] + " other answers"));
    part.appendChild(list);
    return part;
  }

  function column(side, content) {
    var select = document.getElementById("arm-" + side), arm = content.arms[chosen(side)], node = make("div");
    node.appendChild(make("h4", select.options[select.selectedIndex].text));
    node.appendChild(make("p", arm.c + " right of " + arm.n + " samples; " + arm.samples.length + " of them here.", "note"));
    if (arm.answers.length) node.appendChild(tally(arm));
    var which = document.getElementById("sample-kind").value;
    var rows = arm.samples.filter(function (row) { return which === "all" || (row[1] === "right") === (which === "right"); });
    var list = node.appendChild(make("div", undefined, "list"));
    list.tabIndex = 0;
    rows.forEach(function (row) { list.appendChild(sample(row)); });
    if (!rows.length) list.appendChild(make("p", "None of this kind was kept.", "note"));
    return node;
  }

  function draw() {
    if (shown === null) return;
    var place = shown, said = viewer.querySelector(".said"), columns = viewer.querySelector(".columns");
    said.textContent = "Loading\u2026";
    load(place).then(function (content) {
      if (shown !== place) return;
      said.textContent = content.question;
      columns.replaceChildren(column("left", content), column("right", content));
    }).catch(function (error) {
      if (shown !== place) return;
      said.textContent = error.message;
      columns.replaceChildren();
    });
  }

  function open(place, row) {
    shown = place;
    cameFrom = row.querySelector("a");
    problems.querySelectorAll("tr.open").forEach(function (other) { other.classList.remove("open"); });
    row.classList.add("open");
    viewer.hidden = false;
    viewer.querySelector("h3").textContent = "Samples of " + cameFrom.textContent;
    draw();
    row.scrollIntoView({ block: "nearest" });
    viewer.scrollIntoView({ block: "start" });
    viewer.focus({ preventScroll: true });
  }

  function step(by) {
    var rows = visible(), at = rows.findIndex(function (row) { return row.id === "problem-" + shown; });
    var row = rows[at + by];
    if (row) location.hash = row.id;
  }

  function follow() {
    var target = location.hash && document.getElementById(location.hash.slice(1));
    if (!target) return;
    if (viewer && target.tagName === "TR" && target.id.startsWith("problem-")) return open(+target.id.slice(8), target);
    for (var part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    target.scrollIntoView();
  }

  if (problems) {
    ["problem-words", "problem-kind", "arm-left", "arm-right"].forEach(function (name) {
      document.getElementById(name).addEventListener("input", function () { filter(); draw(); });
    });
    filter();
  }
  if (viewer) {
    document.getElementById("sample-kind").addEventListener("input", draw);
    viewer.querySelectorAll("button").forEach(function (button) {
      button.addEventListener("click", function () {
        if (button.dataset.step) return step(+button.dataset.step);
        viewer.hidden = true;
        shown = null;
        cameFrom.focus();
      });
    });
  }
  document.querySelectorAll('a[href^="#problem-"]').forEach(function (link) {
    link.addEventListener("click", function () { if (location.hash === link.hash) follow(); });
  });
  addEventListener("hashchange", follow);
  follow();
})();
