/** Plain tables for terminals. */

/** A cell; numbers stand on the right. */
export type Cell = string | number | null;

/** A table with a line of headings. What comes from rows of a database may hold anything, so it is made harmless. */
export function formatTable(headings: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const shown = rows.map((row) => row.map((cell) => oneLine(cell === null ? "–" : String(cell))));
  const widths = headings.map((heading, column) =>
    Math.max(heading.length, ...shown.map((row) => row[column]?.length ?? 0)),
  );
  const isNumeric = headings.map((_, column) => rows.some((row) => typeof row[column] === "number"));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) =>
        isNumeric[column] ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
      )
      .join("  ")
      .trimEnd();
  return [line(headings), line(widths.map((width) => "─".repeat(width))), ...shown.map(line)].join("\n");
}

/** Names and values, one a line. */
export function formatList(entries: readonly (readonly [name: string, value: Cell])[]): string {
  const width = Math.max(...entries.map(([name]) => name.length));
  return entries
    .map(([name, value]) => `${name.padEnd(width)}  ${value === null ? "–" : printable(String(value))}`)
    .join("\n");
}

/** Without what a terminal would obey: an error or a payload is somebody else's text. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "�");
}

function oneLine(text: string): string {
  return printable(text.replaceAll(/\s+/g, " "));
}
