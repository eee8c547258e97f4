/** Which fault strikes when, and at what. Pure: the seed alone decides. */
import { createRandom, type Random } from "../model/random.ts";
import type { FaultKind } from "./faults/fault.ts";

export interface PlannedFault {
  readonly kind: FaultKind;
  readonly target: string;
  readonly random: Random;
}

/**
 * Yields every kind once in random order, then all of them again in another order and with other targets, while
 * `continues` returns true. Each fault gets a random generator of its own, so the plan does not depend on how many numbers
 * the earlier faults drew.
 */
export function* planFaults(
  seed: number,
  kinds: readonly FaultKind[],
  continues: () => boolean,
): Generator<PlannedFault> {
  const random = createRandom(seed);
  if (kinds.length === 0) return;
  const targetsLeft = new Map<FaultKind, string[]>();
  for (let pass = 1; pass === 1 || continues(); pass++) {
    for (const kind of shuffled(kinds, random)) {
      if (pass > 1 && !continues()) return;
      // Every target gets its turn before any gets a second one.
      const targets = targetsLeft.get(kind) ?? [];
      if (targets.length === 0) targets.push(...shuffled(kind.targets, random));
      targetsLeft.set(kind, targets);
      const target = targets.pop();
      if (target === undefined) throw new Error(`${kind.name} has no target.`);
      yield { kind, target, random: createRandom(random.below(2 ** 31)) };
    }
  }
}

function shuffled<Item>(items: readonly Item[], random: Random): Item[] {
  const rest = [...items];
  return Array.from(items, () => rest.splice(random.below(rest.length), 1)).flat();
}
