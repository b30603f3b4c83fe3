// Click a column's heading to order the rows by it: first best to worst, then back. What is unknown goes last.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, at) => head.querySelector("button").addEventListener("click", () => {
    const first = head.dataset.first, other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    heads.forEach(one => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map(row => ({ row, key: key(row.cells[at]) }));
    rows.sort((a, b) => (a.key === "") - (b.key === "") || sign * compared(a.key, b.key));
    table.tBodies[0].append(...rows.map(({ row }) => row));
  }));
}

// A number, or text, or "" for nothing.
function key(cell) {
  const given = cell.dataset.key;
  return given === undefined ? cell.textContent : given === "" ? "" : Number(given);
}

function compared(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}
