/** Changes a source text for a mutant. Used for the domain code and for the delivery code alike. */

/** `from`, which the text holds exactly once, becomes `to`. */
export interface Change {
  readonly from: string;
  readonly to: string;
}

/** @throws Error where `from` is not in the text exactly once: the code has moved on, and the mutant has to follow. */
export function applyChange(
  text: string,
  { from, to }: Change,
  mutant: { readonly name: string; readonly file: string },
) {
  const [before = "", after, ...more] = text.split(from);
  if (after !== undefined && more.length === 0) return `${before}${to}${after}`;
  const times = after === undefined ? 0 : more.length + 1;
  throw new Error(
    `The mutant "${mutant.name}" changes a text that ${mutant.file} holds ${times} times instead of once:\n${from}`,
  );
}
