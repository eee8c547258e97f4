/** A search for the highest rate that the system keeps up with. Rates are in orders a second. */
export interface KneeSearch {
  readonly firstRate: number;
  /** The search ends at this rate even if the system keeps up with it. */
  readonly rateMax: number;
  /** The search ends when the highest rate that held and the lowest that did not differ by this share: 0.05 is 5 %. */
  readonly precision: number;
  /** Whether the system keeps up with a rate. */
  readonly holds: (rate: number) => Promise<boolean>;
}

/**
 * Finds the highest rate that holds: doubles the rate until one does not hold, then bisects. A rate that does not hold gets
 * a second attempt, since a single pause of a busy machine is not the system's limit. Returns 0 if no rate holds.
 */
export async function findKnee({ firstRate, rateMax, precision, holds }: KneeSearch): Promise<number> {
  let held = 0;
  let failed = Number.POSITIVE_INFINITY;
  let rate = Math.min(firstRate, rateMax);
  for (;;) {
    if ((await holds(rate)) || (await holds(rate))) held = rate;
    else failed = rate;
    if (held >= rateMax) return held;
    if (failed === Number.POSITIVE_INFINITY) {
      rate = Math.min(held * 2, rateMax);
      continue;
    }
    const middle = Math.round((held + failed) / 2);
    if (failed - held <= Math.max(1, precision * failed) || middle <= held || middle >= failed) return held;
    rate = middle;
  }
}
