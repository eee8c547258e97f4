/** `npm run ops -- stuck`: where does it hang? */

import { type Cell, formatTable } from "../../kit/table.ts";
import { type OpsArguments, UsageError, type VerbUsage } from "../arguments.ts";
import { shortNameOf } from "../audit/promises.ts";
import { databasesOf } from "../audit/sources.ts";
import type { Verb } from "../context.ts";
import { counted, cut, duration } from "../rendering.ts";
import { type Debt, findStuck, type StuckOrder } from "../stuck/stuck.ts";

const olderThanSeconds = 30;
const secondsMax = 86_400;
const limitDefault = 100;
const limitMax = 10_000;
const errorLengthMax = 80;

/** Lists the orders that are not final past a limit, and who owes what to them. */
export const stuckVerb: Verb = {
  name: "stuck",
  flags: { "older-than": "SECONDS", limit: "N" },
  synopsis: "[--older-than SECONDS] [--limit N]",
  summary: `the orders that are not final after ${olderThanSeconds} s: what each waits for, who owes it, and what they know`,
  async run(context, args) {
    const olderThan = numberOf(args, "older-than", olderThanSeconds, secondsMax);
    const limit = numberOf(args, "limit", limitDefault, limitMax);
    const report = await findStuck(databasesOf(context.sources), { olderThanMs: olderThan * 1_000, limit });
    if (report.total === 0) {
      return { document: { ...report }, text: `No order that is older than ${olderThan} s waits for anything.` };
    }
    const headings = ["order", "status", "age", "unchanged", "waits for", "owed by", "step", "what they know"];
    const more = report.total - report.orders.length;
    return {
      document: { ...report },
      text: [
        formatTable(headings, report.orders.flatMap(linesOf)),
        counted(report.total, "order") + (more > 0 ? `; the oldest ${report.orders.length} are shown` : ""),
      ].join("\n"),
    };
  },
};

function numberOf({ text }: OpsArguments<VerbUsage>, flag: string, fallback: number, max: number): number {
  const value = text(flag);
  if (value === undefined) return fallback;
  const number = Number(value);
  if (/^\d+$/.test(value) && number <= max) return number;
  throw new UsageError(`--${flag} takes a whole number up to ${max}, but is "${value}".`);
}

function linesOf({ orderId, status, ageMs, unchangedMs, owed }: StuckOrder): Cell[][] {
  const order = [orderId, status, duration(ageMs), duration(unchangedMs)];
  if (owed.length === 0) return [[...order, null, "nobody", null, "no event under way will ever move it: run audit"]];
  return owed.map((debt) => [
    ...order,
    debt.waitsFor.map(shortNameOf).join(" or "),
    debt.by,
    `${debt.step} ${shortNameOf(debt.event.type)}`,
    knowledge(debt),
  ]);
}

function knowledge({ by, knows }: Debt): string {
  const { inbox, undelivered, parked, row } = knows;
  const facts: string[] = [];
  if (by !== "relay")
    facts.push(inbox === null ? "not received" : `${inbox.outcome} at ${inbox.handledAt.toISOString()}`);
  if (parked !== null) facts.push(`parked: ${cut(parked, errorLengthMax)}`);
  if (row !== null) facts.push(`its row is ${row.status}`);
  if (row !== null && "refusal" in row && row.refusal !== null)
    facts.push(`the gateway ${cut(row.refusal, errorLengthMax)}`);
  if (row !== null && "attempts" in row && row.nextAttemptAt !== null) {
    facts.push(`${counted(row.attempts, "call")} made, the next due at ${row.nextAttemptAt.toISOString()}`);
  }
  for (const { type, status, retryCount, lastError, nextAttemptAt } of undelivered) {
    const tries = retryCount === 0 ? "" : ` after ${counted(retryCount, "try")}`.replace("trys", "tries");
    const next = nextAttemptAt === null ? "" : `, again at ${nextAttemptAt.toISOString()}`;
    const error = lastError === null ? "" : `: ${cut(lastError, errorLengthMax)}`;
    facts.push(`${shortNameOf(type)} is ${status}${tries}${next}${error}`);
  }
  return facts.join("; ");
}
