"use strict";
// Sorts tables of the class "sortable" by their columns: headings have data-sort, the cells of the
// column data-key of the same name and, where there is a figure, data-value. Without it, and
// without JavaScript, the rows stand as they were measured.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.querySelectorAll("th[data-sort]")];
  const figure = (row, heading) => {
    const cell = row.querySelector(`[data-key="${heading.dataset.sort}"]`);
    return cell && cell.dataset.value ? Number(cell.dataset.value) : NaN;
  };
  // Narrow screens show no headings, but this list.
  const label = document.createElement("label");
  const list = document.createElement("select");
  label.className = "sortby";
  label.append("Sort by ", list);
  table.before(label);

  const sort = (heading, direction) => {
    const sign = direction === "descending" ? -1 : 1;
    const rows = [...body.rows].sort((a, b) => {
      const x = figure(a, heading), y = figure(b, heading);
      // Rows without a figure come last, whichever way the others go.
      return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : sign * (x - y);
    });
    body.append(...rows);
    for (const other of headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", direction);
    list.value = heading.dataset.sort;
  };
  const first = (heading) => heading.dataset.first || "ascending";

  for (const heading of headings) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const now = heading.getAttribute("aria-sort");
      const other = now === "ascending" ? "descending" : "ascending";
      sort(heading, now ? other : first(heading));
    });
    list.append(new Option(heading.dataset.name, heading.dataset.sort));
  }
  list.addEventListener("change", () => {
    const heading = headings.find((h) => h.dataset.sort === list.value);
    sort(heading, first(heading));
  });
}
