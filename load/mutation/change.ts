/** One replacement in a source file, as a mutant of the domain code or of the delivery code makes it. */

/** Replaces `from`, which must occur exactly once in the file, by `to`. */
export interface Change {
  readonly from: string;
  readonly to: string;
}

/** Applies the change to `text`. @throws Error unless `from` occurs exactly once: the mutant is older than the code. */
export function applyChange(
  text: string,
  { from, to }: Change,
  mutant: { readonly name: string; readonly file: string },
): string {
  const [before = "", after, ...more] = text.split(from);
  if (after !== undefined && more.length === 0) return `${before}${to}${after}`;
  const times = after === undefined ? 0 : more.length + 1;
  throw new Error(
    `The mutant "${mutant.name}" replaces text that occurs ${times} times instead of once in ${mutant.file}:\n${from}`,
  );
}
