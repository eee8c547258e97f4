/** `npm run ops -- stuck`: the orders that are not final, and what each waits for. */
import { type Cell, formatTable } from "../../kit/table.ts";
import { type OpsArguments, parseWholeNumber, type VerbUsage } from "../arguments.ts";
import { shortNameOf } from "../audit/books.ts";
import { databasesOf } from "../audit/sources.ts";
import { errorLengthMax, type Verb } from "../context.ts";
import { counted, cut, duration } from "../rendering.ts";
import { describeStatus } from "../stuck/statuses.ts";
import { type Debt, findStuck, type StuckOrder } from "../stuck/stuck.ts";

const olderThanSecondsDefault = 30;
const olderThanSecondsMax = 86_400;
const limitDefault = 100;
const limitMax = 10_000;

export const stuckVerb: Verb = {
  name: "stuck",
  flags: { "older-than": "SECONDS", limit: "N" },
  synopsis: "[--older-than SECONDS] [--limit N]",
  summary: `orders that are not final after ${olderThanSecondsDefault} s, and what each waits for`,
  async run(context, args) {
    const olderThanSeconds = numberOf(args, "older-than", olderThanSecondsDefault, olderThanSecondsMax);
    const limit = numberOf(args, "limit", limitDefault, limitMax);
    const report = await findStuck(databasesOf(context.sources), { olderThanMs: olderThanSeconds * 1_000, limit });
    if (report.total === 0) {
      return { document: { ...report }, text: `Every order that is older than ${olderThanSeconds} s is final.` };
    }
    const headings = ["order", "status", "age", "unchanged", "waits for", "owed by", "step", "details"];
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
  return value === undefined ? fallback : parseWholeNumber(flag, value, max);
}

function linesOf({ orderId, status, ageMs, unchangedMs, owed }: StuckOrder): Cell[][] {
  const order = [orderId, status, duration(ageMs), duration(unchangedMs)];
  if (owed.length === 0) {
    const isKnown = describeStatus(status) === status;
    const why = isKnown ? "no event on its way can move this order: run audit" : `it is ${describeStatus(status)}`;
    return [[...order, null, null, null, why]];
  }
  return owed.map((debt) => [
    ...order,
    debt.waitsFor.map(shortNameOf).join(" or "),
    debt.by,
    `${debt.step} ${shortNameOf(debt.event.type)}`,
    describeKnowledge(debt),
  ]);
}

function describeKnowledge({ by, knows }: Debt): string {
  const { inbox, undelivered, parked, row } = knows;
  const facts: string[] = [];
  if (by !== "relay")
    facts.push(inbox === null ? "not received" : `${inbox.outcome} at ${inbox.handledAt.toISOString()}`);
  if (parked !== null) facts.push(`parked: ${cut(parked, errorLengthMax)}`);
  if (row !== null) facts.push(`its row is ${describeStatus(row.status)}`);
  if (row !== null && "refusal" in row && row.refusal !== null)
    facts.push(`the gateway ${cut(row.refusal, errorLengthMax)}`);
  if (row !== null && "attempts" in row && row.nextAttemptAt !== null) {
    facts.push(`${counted(row.attempts, "gateway call")} made, the next one at ${row.nextAttemptAt.toISOString()}`);
  }
  for (const { type, status, retryCount, lastError, nextAttemptAt } of undelivered) {
    const attempts = retryCount === 0 ? "" : ` after ${counted(retryCount, "attempt")}`;
    const next = nextAttemptAt === null ? "" : `, next attempt at ${nextAttemptAt.toISOString()}`;
    const error = lastError === null ? "" : `: ${cut(lastError, errorLengthMax)}`;
    facts.push(`${shortNameOf(type)} is ${status}${attempts}${next}${error}`);
  }
  return facts.join("; ");
}
