"use strict";
for (const table of document.querySelectorAll("table.board")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") === "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const key = (row) => row.cells[place].dataset.value ?? "";
      const numeric = head.classList.contains("number");
      const order = (one, other) => {
        if (one === "" || other === "") return (one === "") - (other === "");
        const way = numeric ? Number(one) - Number(other) : one.localeCompare(other);
        return rising ? way : -way;
      };
      [...body.rows].sort((a, b) => order(key(a), key(b))).forEach((row) => body.append(row));
    });
  });
}
