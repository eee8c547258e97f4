/** What a kind of fault is, and what all kinds need: a moment to strike at, and evidence that something was hit. */
import { sleep } from "../../../services/kit/backoff.ts";
import type { Random } from "../../model/random.ts";
import type { TcpProxy } from "../proxy.ts";
import type { ChaosStack } from "../stack.ts";

export interface FaultContext {
  readonly stack: ChaosStack;
  readonly random: Random;
}

/**
 * Whether a fault interrupted work: `hit` with the evidence, `missed` with what the evidence lacks, or `skipped` with why
 * this machine does not allow the fault. A fault without evidence proves nothing.
 */
export type Outcome =
  | { readonly kind: "hit"; readonly witnesses: readonly string[] }
  | { readonly kind: "missed"; readonly why: string }
  | { readonly kind: "skipped"; readonly why: string };

export interface FaultKind {
  readonly name: string;
  /** What the fault can be applied to. */
  readonly targets: readonly string[];
  /** Injects the fault while work is in flight, and ends it again. @throws Error if something does not recover. */
  strike(context: FaultContext, target: string): Promise<Outcome>;
}

const pollMs = 50;
const busyTimeoutMs = 15_000;
/** The number of upcoming requests of which a fault strikes at a random one. */
const requestsMax = 20;

export const missed = (why: string): Outcome => ({ kind: "missed", why });

/** A hit with `figures` and `notes` as its witnesses; a miss if one of the figures is 0. */
export function witnessed(figures: readonly (readonly [number, string])[], ...notes: readonly string[]): Outcome {
  const absent = figures.find(([count]) => count === 0);
  if (absent !== undefined) return missed(`0 ${absent[1]}`);
  return { kind: "hit", witnesses: [...figures.map(([count, what]) => `${count} ${what}`), ...notes] };
}

/** Calls `strike` while one of the next requests on `link` is in flight. False if too few requests came. */
export function atSomeRequest(link: TcpProxy, random: Random, strike: () => void): Promise<boolean> {
  return link.atRequest(1 + random.below(requestsMax), strike);
}

/** Like {@link atSomeRequest}; returns how many connections were waiting for an answer just after the strike. */
export async function midRequest(link: TcpProxy, random: Random, strike: () => void): Promise<number> {
  let unanswered = 0;
  await atSomeRequest(link, random, () => {
    strike();
    unanswered = link.unanswered();
  });
  return unanswered;
}

/** Waits until at least one order is not final; returns how many are not. */
export async function untilBusy(stack: ChaosStack): Promise<number> {
  let notFinal = 0;
  await until(async () => {
    notFinal = await countNotFinal(stack);
    return notFinal > 0;
  }, busyTimeoutMs);
  return notFinal;
}

async function countNotFinal({ sources }: ChaosStack): Promise<number> {
  const [row] = await sources.databases.order.query<{ n: number }>(
    "SELECT COUNT(*) AS n FROM orders WHERE status NOT IN ('COMPLETED', 'FAILED')",
  );
  return Number(row?.n ?? 0);
}

/** Polls until `holds` is true. False if it is not within `timeoutMs`. */
export async function until(holds: () => Promise<boolean>, timeoutMs: number): Promise<boolean> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    if (await holds()) return true;
    if (performance.now() > deadlineMs) return false;
    await sleep(pollMs);
  }
}
