/** Walks with many seeds, one after the other. */
import { type WalkResult, walk } from "./walk.ts";

/** The sums over all walks. */
export interface WalkTotals {
  readonly seeds: number;
  /** The first seed. */
  readonly from: number;
  readonly steps: number;
  readonly outcomes: ReadonlyMap<string, number>;
  readonly faults: ReadonlyMap<string, number>;
}

/**
 * Walks with `seeds` seeds from `from` on. Returns the sums, or the first walk that broke a promise, with its trace.
 * Calls `report` after each walk with the number of walks so far.
 */
export function walkSeeds(
  { seeds, from }: { readonly seeds: number; readonly from: number },
  report: (done: number) => void = () => undefined,
): { readonly totals: WalkTotals } | { readonly broken: WalkResult } {
  const outcomes = new Map<string, number>();
  const faults = new Map<string, number>();
  let steps = 0;
  for (let done = 0; done < seeds; done++) {
    const result = walk(from + done);
    if (result.broken !== undefined) return { broken: walk(result.seed, { trace: true }) };
    steps += result.steps;
    addCounts(outcomes, result.outcomes);
    addCounts(faults, result.faults);
    report(done + 1);
  }
  return { totals: { seeds, from, steps, outcomes, faults } };
}

function addCounts(totals: Map<string, number>, counts: ReadonlyMap<string, number>): void {
  for (const [name, count] of counts) totals.set(name, (totals.get(name) ?? 0) + count);
}
