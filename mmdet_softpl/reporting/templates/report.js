'use strict';
function valueOf(row, column) {
  const cell = row.cells[column];
  const given = cell.dataset.value;
  if (given === undefined) return cell.textContent.trim().toLowerCase();
  return given === '' ? null : Number(given);
}
function compare(a, b) {
  return typeof a === 'string' ? a.localeCompare(b) : a - b;
}
for (const button of document.querySelectorAll('th button')) {
  button.addEventListener('click', () => {
    const head = button.closest('th');
    const column = head.cellIndex;
    const body = head.closest('table').tBodies[0];
    const before = head.getAttribute('aria-sort');
    // Numbers are mostly looked at from the largest on, names from A on.
    const first = head.classList.contains('text') ? 'ascending' : 'descending';
    const other = first === 'ascending' ? 'descending' : 'ascending';
    const order = before === first ? other : first;
    for (const th of head.parentNode.cells) th.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', order);
    const sign = order === 'ascending' ? 1 : -1;
    const rows = Array.from(body.rows, (row) => [valueOf(row, column), row]);
    rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
    body.append(...rows.map(([, row]) => row));
  });
}
for (const input of document.querySelectorAll('input[data-filter]')) {
  input.addEventListener('input', () => {
    const wanted = input.value.trim().toLowerCase();
    for (const row of document.getElementById(input.dataset.filter).tBodies[0].rows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    }
  });
}
