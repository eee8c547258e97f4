/** What people read: plain tables and durations. Programs get the same as JSON. */

/** A cell; numbers stand on the right. */
export type Cell = string | number | null;

/** A table with a line of headings. What comes from rows of a database may hold anything, so it is made harmless. */
export function table(headings: readonly string[], rows: readonly (readonly Cell[])[]): string {
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
export function list(entries: readonly (readonly [name: string, value: Cell])[]): string {
  const width = Math.max(...entries.map(([name]) => name.length));
  return entries
    .map(([name, value]) => `${name.padEnd(width)}  ${value === null ? "–" : printable(String(value))}`)
    .join("\n");
}

/** `850 ms`, `42 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`. */
export function duration(ms: number | null): string | null {
  if (ms === null) return null;
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  const seconds = Math.floor(ms / 1_000);
  const units = [
    ["d", 86_400],
    ["h", 3_600],
    ["min", 60],
    ["s", 1],
  ] as const;
  const first = units.findIndex(([, size]) => seconds >= size);
  let rest = seconds;
  const parts = units.slice(first, first + 2).map(([unit, size]) => {
    const amount = Math.floor(rest / size);
    rest -= amount * size;
    return amount === 0 ? undefined : `${amount} ${unit}`;
  });
  return parts.filter((part) => part !== undefined).join(" ");
}

/** At most `lengthMax` characters. */
export function cut(text: string | null, lengthMax: number): string | null {
  if (text === null || text.length <= lengthMax) return text;
  return `${text.slice(0, lengthMax - 1)}…`;
}

/** `1 event`, `2 events`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Without what a terminal would obey: an error or a payload is somebody else's text. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "�");
}

function oneLine(text: string): string {
  return printable(text.replaceAll(/\s+/g, " "));
}
