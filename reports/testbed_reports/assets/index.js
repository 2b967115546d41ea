"use strict";
// Only comfort: finding a test by a part of its name. The whole list is on the page without it.
(() => {
  const label = document.querySelector(".find");
  if (!label) return;
  label.hidden = false;
  const input = label.querySelector("input"), told = label.querySelector(".found");
  const folds = [...document.querySelectorAll("details.tests")].map((fold) => {
    const heading = fold.querySelector("summary").textContent.toLowerCase();
    return { fold, heading, opened: fold.open, items: null };
  });
  function items(each) {
    each.items ??= [...each.fold.querySelectorAll("li")].map((item) => ({ item, text: item.textContent.toLowerCase() }));
    return each.items;
  }
  let waiting = 0;
  function find() {
    waiting = 0;
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0, open = 0;
    for (const each of folds) {
      let here = 0;
      for (const { item, text } of items(each)) {
        const hit = words.every((word) => text.includes(word) || each.heading.includes(word));
        item.hidden = !hit;
        here += hit;
      }
      found += here;
      each.fold.hidden = !here;
      // What opens is bounded: a single letter must not lay out ten thousand lines.
      each.fold.open = words.length ? here > 0 && (open += here) <= 500 : each.opened;
    }
    told.textContent = words.length ? `${found} found` : "";
  }
  input.addEventListener("input", () => { if (!waiting) waiting = setTimeout(find, 80); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { input.value = ""; find(); }
  });
})();
