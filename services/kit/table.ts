/** Plain-text tables for terminals. Control characters in cells are replaced, because cells may hold untrusted text. */

/** Columns with numbers are right-aligned; null is shown as a dash. */
export type Cell = string | number | null;

/**
 * A table with a line of headings. Each cell is shown on one line.
 * @param options.rightAligned indexes of columns to right-align although their cells are text, such as formatted figures.
 */
export function formatTable(
  headings: readonly string[],
  rows: readonly (readonly Cell[])[],
  options: { readonly rightAligned?: readonly number[] } = {},
): string {
  const shown = rows.map((row) => row.map((cell) => oneLine(cell === null ? "–" : String(cell))));
  const widths = headings.map((heading, column) =>
    Math.max(heading.length, ...shown.map((row) => row[column]?.length ?? 0)),
  );
  const isRightAligned = headings.map(
    (_, column) =>
      options.rightAligned?.includes(column) === true || rows.some((row) => typeof row[column] === "number"),
  );
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) =>
        isRightAligned[column] ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
      )
      .join("  ")
      .trimEnd();
  return [line(headings), line(widths.map((width) => "─".repeat(width))), ...shown.map(line)].join("\n");
}

/** One line per entry: name, then value. */
export function formatList(entries: readonly (readonly [name: string, value: Cell])[]): string {
  const width = Math.max(...entries.map(([name]) => name.length));
  return entries
    .map(([name, value]) => `${name.padEnd(width)}  ${value === null ? "–" : printable(String(value))}`)
    .join("\n");
}

/** The text with control characters replaced, so that an error or a payload cannot control the terminal. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the regex matches exactly these
  return text.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "�");
}

function oneLine(text: string): string {
  return printable(text.replaceAll(/\s+/g, " "));
}
