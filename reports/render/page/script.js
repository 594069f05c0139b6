"use strict";
(() => {
  const THEME = "rvc-parity-theme";
  const root = document.documentElement;

  // Pages from a disk may have no storage, or one that refuses.
  function remembered() {
    try { return localStorage.getItem(THEME); } catch { return null; }
  }
  function remember(theme) {
    try { localStorage.setItem(THEME, theme); } catch { /* the choice lasts as long as the page */ }
  }

  // Before anything is painted.
  const chosen = remembered();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;

  function make(tag, className, text) {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    if (tag === "button") element.type = "button";
    return element;
  }

  // ------------------------------------------------------------------ theme
  function addThemeButton() {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const button = make("button", "theme", "");
    const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
    const name = () => { button.textContent = dark() ? "Light theme" : "Dark theme"; };
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      remember(root.dataset.theme);
      name();
    });
    system.addEventListener("change", name);
    name();
    document.querySelector(".top").append(button);
  }

  // ------------------------------------------------------------------ contents
  function setUpContents() {
    const details = document.querySelector(".contents details");
    const wide = matchMedia("(min-width: 67rem)");
    const fit = () => { details.open = wide.matches; };
    wide.addEventListener("change", fit);
    fit();
    details.addEventListener("click", (event) => {
      if (event.target.closest("a") && !wide.matches) details.open = false;
    });
    followReading(details);
  }

  function followReading(details) {
    if (!("IntersectionObserver" in window)) return;
    const links = new Map([...details.querySelectorAll("a")].map((a) => [a.hash.slice(1), a]));
    const sections = [...document.querySelectorAll("main > section")];
    const seen = new Set();
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) entry.isIntersecting ? seen.add(entry.target) : seen.delete(entry.target);
      const current = sections.find((section) => seen.has(section));
      for (const link of links.values()) link.removeAttribute("aria-current");
      if (current) links.get(current.firstElementChild.id)?.setAttribute("aria-current", "true");
    }, { rootMargin: "0px 0px -75% 0px" });
    sections.forEach((section) => observer.observe(section));
  }

  // ------------------------------------------------------------------ sorting
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  // Numbers before words; a dash is neither, and stays last whatever the direction.
  function compare(a, b, direction) {
    const none = ("none" in a.dataset) - ("none" in b.dataset);
    if (none) return none;
    const left = a.dataset.v, right = b.dataset.v;
    if (left !== undefined && right !== undefined) {
      const x = Number(left), y = Number(right);
      return x === y ? 0 : direction * (x < y ? -1 : 1);
    }
    if (left !== undefined || right !== undefined) return left !== undefined ? -1 : 1;
    return direction * words.compare(a.textContent, b.textContent);
  }

  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

  function makeSortable(table) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    if (original.length < 2) return;
    heads.forEach((head, column) => {
      if (head.tagName !== "TH") return;
      const button = make("button", "sort", "");
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const state = NEXT[head.getAttribute("aria-sort")];
        heads.forEach((other) => { if (other.tagName === "TH") other.setAttribute("aria-sort", "none"); });
        head.setAttribute("aria-sort", state);
        const rows = [...original];
        const direction = state === "ascending" ? 1 : -1;
        if (state !== "none") rows.sort((a, b) => compare(a.cells[column], b.cells[column], direction));
        body.append(...rows);
      });
    });
  }

  // ------------------------------------------------------------------ tooltip: one, shared
  const tip = make("div", "tip", "");
  let owner = null;
  let timer = 0;

  function hide() {
    clearTimeout(timer);
    tip.hidden = true;
    if (!owner) return;
    if (owner.tip.native) owner.element.setAttribute("title", owner.tip.text);
    owner.element.classList.remove("shown");
    owner = null;
  }

  // While ours is shown the browser's own must not come up as well.
  function show(element) {
    clearTimeout(timer);
    if (owner && owner.element === element) return;
    hide();
    const native = element.hasAttribute("title");
    const text = element.getAttribute(native ? "title" : "aria-label");
    if (!text) return;
    owner = { element, tip: { native, text } };
    if (native) element.removeAttribute("title");
    element.classList.add("shown");
    tip.textContent = text;
    tip.hidden = false;
    place(element.getBoundingClientRect());
  }

  // Above, or below where there is no room; never beyond the window.
  function place(at) {
    const gap = 6, edge = 8;
    tip.style.left = tip.style.top = "0";
    const size = tip.getBoundingClientRect();
    const left = Math.min(Math.max(edge, at.left + at.width / 2 - size.width / 2), innerWidth - size.width - edge);
    const top = at.top - size.height - gap;
    tip.style.left = `${Math.max(edge, left)}px`;
    tip.style.top = `${top >= edge ? top : Math.min(at.bottom + gap, innerHeight - size.height - edge)}px`;
  }

  // Focus may scroll what it comes to into view, which is no reason to go.
  function follow() {
    if (owner && owner.element === document.activeElement) place(owner.element.getBoundingClientRect());
    else hide();
  }

  function setUpTips() {
    tip.setAttribute("role", "tooltip");
    tip.setAttribute("aria-live", "off");
    tip.hidden = true;
    document.body.append(tip);
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
    document.addEventListener("scroll", follow, { capture: true, passive: true });
    document.addEventListener("pointerover", (event) => {
      const titled = event.target.closest("[title]");
      if (!titled || event.pointerType !== "mouse") return;
      clearTimeout(timer);
      timer = setTimeout(() => show(titled), 200);
    });
    document.addEventListener("pointerout", (event) => {
      if (event.pointerType !== "mouse" || event.target.closest("svg")) return;
      clearTimeout(timer);
      if (owner && !owner.element.contains(event.relatedTarget) && owner.tip.native) hide();
    });
    document.addEventListener("click", (event) => {
      if (event.target.closest("svg")) return;
      const titled = event.target.closest("[title]");
      if (titled) show(titled);
      else if (!owner || !owner.element.contains(event.target)) hide();
    });
    document.querySelectorAll("figure svg").forEach(setUpMarks);
  }

  // ------------------------------------------------------------------ marks in a drawing
  const KEYS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

  // One stop of the tab key per drawing; arrows go from mark to mark.
  function setUpMarks(svg) {
    const marks = [...svg.querySelectorAll(".mark")];
    marks.forEach((mark, i) => {
      const title = mark.querySelector("title");
      if (title) {
        if (!mark.hasAttribute("aria-label")) mark.setAttribute("aria-label", title.textContent);
        title.remove();
      }
      mark.setAttribute("tabindex", i ? "-1" : "0");
      mark.addEventListener("focus", () => show(mark));
      mark.addEventListener("blur", hide);
    });
    if (!marks.length) return;
    const points = marks.map((mark) => [mark.cx.baseVal.value, mark.cy.baseVal.value, mark]);
    svg.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse") showNearest(svg, points, event);
    });
    svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
    svg.addEventListener("click", (event) => showNearest(svg, points, event));
    svg.addEventListener("keydown", (event) => walk(marks, event));
  }

  // A fingertip covers more than a mark does.
  function showNearest(svg, points, event) {
    const matrix = svg.getScreenCTM();
    if (!matrix) return;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
    let least = (event.pointerType === "mouse" ? 10 : 24) / matrix.a;
    let found = null;
    for (const [x, y, mark] of points) {
      const distance = Math.hypot(x - at.x, y - at.y);
      if (distance <= least) { least = distance; found = mark; }
    }
    if (found) show(found);
    else hide();
  }

  function walk(marks, event) {
    const here = marks.indexOf(document.activeElement);
    let to = here + (KEYS[event.key] ?? 0);
    if (event.key === "Home") to = 0;
    if (event.key === "End") to = marks.length - 1;
    if (here < 0 || to === here || !marks[to]) return;
    event.preventDefault();
    marks[here].setAttribute("tabindex", "-1");
    marks[to].setAttribute("tabindex", "0");
    marks[to].focus();
  }

  // ------------------------------------------------------------------ copying
  function addCopyButton(command) {
    const button = make("button", "copy", "Copy");
    const code = command.querySelector("code");
    command.append(button);
    button.addEventListener("click", async () => {
      button.textContent = (await copied(code)) ? "Copied" : "Selected";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }

  // Without leave to use the clipboard the text is left selected, for the reader's own keys.
  async function copied(element) {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch { /* then the old way */ }
    const selection = getSelection();
    selection.selectAllChildren(element);
    try { return document.execCommand("copy"); } catch { return false; }
  }

  document.addEventListener("DOMContentLoaded", () => {
    addThemeButton();
    setUpContents();
    document.querySelectorAll("table").forEach(makeSortable);
    document.querySelectorAll(".command").forEach(addCopyButton);
    setUpTips();
  });
})();
