"use strict";
(() => {
  const data = JSON.parse(document.getElementById("facts").textContent);
  const panel = document.getElementById("details");
  const nodes = [...document.querySelectorAll(".node[data-bdf]")];
  const nodeOf = new Map();
  nodes.forEach((node) => node.dataset.bdf.split(" ").forEach((bdf) => nodeOf.set(bdf, node)));
  let kept = null;

  function add(parent, name, text) {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  function addLink(parent, bdf) {
    add(parent, "button", bdf).addEventListener("click", () => keep(nodeOf.get(bdf), bdf));
  }

  function showOne(bdf) {
    const part = data.parts[bdf];
    add(panel, "h2", bdf);
    const list = add(panel, "dl");
    for (const [term, words] of part.facts) {
      add(list, "dt", term);
      add(list, "dd", words);
    }
    add(panel, "h3", "Way to the root");
    const way = add(panel, "ol");
    for (let at = bdf; at; at = data.parts[at].parent) {
      const hop = data.parts[at];
      const item = add(way, "li");
      addLink(item, at);
      item.append(` ${hop.kind}: ${hop.acs || "no peers"}`);
    }
    const members = data.groups[part.group];
    if (members) {
      add(panel, "h3", `Group ${part.group}`);
      members.forEach((member) => addLink(panel, member));
    }
  }

  function showRun(bdfs, words) {
    add(panel, "h2", words);
    const list = add(panel, "ol");
    for (const bdf of bdfs) {
      const item = add(list, "li");
      addLink(item, bdf);
      item.append(` group ${data.parts[bdf].group}, ${data.parts[bdf].what}`);
    }
  }

  function show(node, bdf) {
    panel.replaceChildren();
    const bdfs = node.dataset.bdf.split(" ");
    if (bdf || bdfs.length === 1) showOne(bdf || bdfs[0]);
    else showRun(bdfs, node.getAttribute("aria-label"));
    const mine = new Set(node.dataset.group.split(" ").filter((key) => data.groups[key]));
    for (const other of nodes) {
      other.classList.toggle("with", other.dataset.group.split(" ").some((key) => mine.has(key)));
    }
  }

  function keep(node, bdf) {
    if (kept) kept.classList.remove("kept");
    kept = node;
    node.classList.add("kept");
    reach(node);
    show(node, bdf);
  }

  function reach(node) {
    nodes.forEach((other) => other.setAttribute("tabindex", other === node ? "0" : "-1"));
    node.focus();
    node.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  function place(node) {
    const box = node.getBoundingClientRect();
    return [box.left, box.top];
  }

  function nearest(node, key) {
    const [x, y] = place(node);
    let best = null;
    let least = Infinity;
    for (const other of nodes) {
      const [left, top] = place(other);
      const along = { ArrowRight: left - x, ArrowLeft: x - left, ArrowDown: top - y, ArrowUp: y - top }[key];
      const aside = key === "ArrowRight" || key === "ArrowLeft" ? Math.abs(top - y) : Math.abs(left - x);
      const cost = along + 4 * aside;
      if (along > 1 && cost < least) [best, least] = [other, cost];
    }
    return best;
  }

  nodes.forEach((node, number) => {
    node.setAttribute("tabindex", number ? "-1" : "0");
    node.querySelector("title").remove();
    node.addEventListener("mouseenter", () => { if (!kept) show(node); });
    node.addEventListener("focus", () => { if (!kept || kept === node) show(node); });
    node.addEventListener("click", () => keep(node));
    node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") keep(node);
      else if (event.key === "Escape" && kept) { kept.classList.remove("kept"); kept = null; }
      else if (event.key.startsWith("Arrow")) {
        const other = nearest(node, event.key);
        if (other) reach(other);
      } else return;
      event.preventDefault();
    });
  });
  const asked = decodeURIComponent(location.hash.slice(1));
  if (nodeOf.has(asked)) keep(nodeOf.get(asked), asked);
})();
