/** Where to look for the knee. Rates are orders a second. */
export interface KneeSearch {
  readonly firstRate: number;
  /** The search ends here even when the system still keeps up. */
  readonly rateMax: number;
  /** The search ends when the highest rate that held and the lowest that did not are this close: 0.05 is 5 %. */
  readonly precision: number;
  /** Whether the system keeps up with this rate. */
  readonly holds: (rate: number) => Promise<boolean>;
}

/**
 * The highest rate that held: doubled until one does not hold, then bisected. A rate that does not hold is tried a
 * second time, since one pause of a busy machine is not the system's limit. Returns 0 when no rate held.
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
